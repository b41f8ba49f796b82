from collections.abc import Iterator

import numpy as np
import pytest

from pyggml.tensor import Session


@pytest.fixture
def s() -> Iterator[Session]:
    with Session("CPU", n_threads=2) as session:
        yield session


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)
