"""Another process on the loopback address as a device."""

import logging
import socket
from collections.abc import Iterator

import numpy as np
import pytest

from helpers.rpc import rpc_server
from pyggml.errors import BackendError, ParameterError
from pyggml.tensor import Session, rpc


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with rpc_server() as found:
        yield found


def test_product_on_another_process(endpoint: str) -> None:
    (device,) = rpc.connect(endpoint)
    assert endpoint in device.description or endpoint in device.name or device.name.startswith("RPC")
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((5, 64), np.float32), rng.standard_normal((3, 64), np.float32)
    with Session(device, n_threads=1) as s:
        x = s.tensor(a)
        assert "RPC" in x.buffer_name
        assert not x.is_host
        np.testing.assert_allclose((x @ s.tensor(b).T).numpy(), a @ b.T, atol=1e-2)


def test_wrong_endpoints() -> None:
    for wrong in ("nowhere", "host:", ":1", "host:0", "host:99999", "host:port"):
        with pytest.raises(ParameterError, match="host:port"):
            rpc.connect(wrong)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(BackendError, match="no RPC server"):
        rpc.connect(f"127.0.0.1:{port}", timeout=1)


def test_serving_others_must_be_wanted(caplog: pytest.LogCaptureFixture) -> None:
    for host in ("0.0.0.0", "192.0.2.1", "::"):
        with pytest.raises(ParameterError, match="allow_remote"):
            rpc.serve(host, 50052)
    with caplog.at_level(logging.WARNING), pytest.raises(BackendError, match="cannot listen"):
        rpc.serve("192.0.2.1", 50052, allow_remote=True)  # an address that is never ours
    assert "no encryption" in caplog.text
