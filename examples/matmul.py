"""Matrix product and softmax on any device, compared with numpy.  Usage: python matmul.py [DEVICE]"""

import sys

import numpy as np

from pyggml.tensor import DType, Session

rng = np.random.default_rng(0)
x = rng.standard_normal((4, 64), np.float32)
w = rng.standard_normal((32, 64), np.float32)

with Session(sys.argv[1] if len(sys.argv) > 1 else "CPU") as s:
    y = (s.tensor(x) @ s.tensor(w).T).softmax()  # nothing is computed before its value is asked for
    q = s.tensor(x) @ s.tensor(w, dtype=DType.Q8_0).T  # weights quantized on the way in
    print(s.device.name, y)
    scores = x @ w.T
    expected = np.exp(scores - scores.max(-1, keepdims=True))
    expected /= expected.sum(-1, keepdims=True)
    np.testing.assert_allclose(y.numpy(), expected, atol=1e-3)
    print("largest error of the quantized product:", np.abs(q.numpy() - scores).max())
