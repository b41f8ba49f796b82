"""Loading, callbacks, and the functions of back ends that are bound at run time."""

import logging
import signal
from subprocess import CompletedProcess

import numpy as np
import pytest

from pyggml._ffi import backend_libraries, check_status, eval_callback, ffi, lib, load, not_null, proc_address
from pyggml.errors import ComputeError, OutOfMemoryError
from pyggml.tensor import Backend, Executor, Graph, find_device, ops

from .conftest import Runner


def test_load_is_idempotent() -> None:
    assert load() is load()
    assert any(file.name.startswith("libggml-cpu") for file in backend_libraries())


def test_cpu_functions_are_bound() -> None:
    cpu = load().pyggml_cpu
    bound = [name for name in dir(cpu) if name.startswith("ggml_") and getattr(cpu, name) != ffi.NULL]
    assert {"ggml_threadpool_new", "ggml_backend_cpu_set_n_threads", "ggml_get_type_traits_cpu"} <= set(bound)
    assert cpu.ggml_get_type_traits_cpu(int(lib.GGML_TYPE_F32)).vec_dot_type == lib.GGML_TYPE_F32


def test_rpc_functions_are_bound() -> None:
    rpc = load().pyggml_rpc
    assert all(getattr(rpc, name) != ffi.NULL for name in dir(rpc) if name.startswith("ggml_backend_rpc"))


def test_unknown_library_and_function() -> None:
    assert lib.pyggml_bind_cpu(b"/nowhere/libggml-cpu.so") == -1
    registry = lib.ggml_backend_dev_backend_reg(find_device("CPU").ptr)
    assert proc_address(registry, "ggml_backend_no_such_function", "void (*)(void)") is None


def test_status_and_null() -> None:
    check_status(lib.GGML_STATUS_SUCCESS, "nothing")
    with pytest.raises(ComputeError, match="a graph: "):
        check_status(lib.GGML_STATUS_FAILED, "a graph")
    with pytest.raises(OutOfMemoryError, match="a buffer"):
        check_status(lib.GGML_STATUS_ALLOC_FAILED, "a buffer")
    with pytest.raises(OutOfMemoryError, match="a thing"):
        not_null(ffi.NULL, "a thing")


def test_log_reaches_logging(caplog: pytest.LogCaptureFixture) -> None:
    load()
    with caplog.at_level(logging.DEBUG, "pyggml.ggml"):
        lib.pyggml_on_log(lib.GGML_LOG_LEVEL_WARN, b"a warning\n", ffi.NULL)
        # ggml itself complains about a file that does not exist
        params = ffi.new("struct gguf_init_params *", {"no_alloc": True})
        assert lib.gguf_init_from_file(b"/nowhere/model.gguf", params[0]) == ffi.NULL
    assert ("pyggml.ggml", logging.WARNING, "a warning") in caplog.record_tuples
    assert any("model.gguf" in record.message for record in caplog.records)


def test_abort_prints_the_python_stack(in_child: Runner) -> None:
    source = """
from pyggml._ffi import lib, load
load()
from pyggml.tensor import DType, Graph
def careless():
    with Graph() as g:
        lib.ggml_add(g.arena.raw(), g.input(DType.F32, 4, 3).ptr, g.input(DType.F32, 5, 3).ptr)
careless()
"""
    done: CompletedProcess[str] = in_child(source)
    assert done.returncode == -signal.SIGABRT
    assert "ggml stopped the process" in done.stderr
    assert "ggml_can_repeat" in done.stderr
    assert "in careless" in done.stderr
    assert "bug in pyggml" in done.stderr


def test_eval_callback_raises_on_the_python_side() -> None:
    class Stop(Exception):
        pass

    def stop(tensor: object, ask: bool) -> bool:
        if not ask:
            raise Stop
        return True

    with (
        Backend(find_device("CPU"), n_threads=1) as one,
        Backend(find_device("CPU"), n_threads=1) as two,
        Executor([one, two]) as executor,
        Graph() as graph,
    ):
        x = graph.input_like(np.zeros(4, np.float32))
        graph.output(ops.neg(x))
        executor.allocate(graph)
        x.set(np.ones(4))
        with pytest.raises(Stop), eval_callback(executor.scheduler, stop):
            executor.compute(graph)
        x.set(np.ones(4))
        executor.compute(graph)
        np.testing.assert_array_equal(graph.outputs[0].numpy(), -np.ones(4))
