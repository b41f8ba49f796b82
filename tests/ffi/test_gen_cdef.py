"""The generator of the declarations, on a header made for it."""

import subprocess
import sys
from pathlib import Path

import cffi
import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "src/pyggml/_ffi/gen_cdef.py"

HEADER = """
#pragma once
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif
#define GGML_WIDTH 4
#define GGML_HEX (0x10)
#define GGML_TEXT "no number"
#define GGML_CALL(x) ((x) + 1)
// a line comment with ggml_ghost();
/* a block comment with ggml_ghost2(); */
enum ggml_kind { GGML_KIND_A = 0, GGML_KIND_B = (1 << 3), };
struct ggml_thing {
    int64_t ne[GGML_WIDTH];
    char name[2 * GGML_WIDTH];
};
typedef void (*ggml_callback)(struct ggml_thing * thing, int n);
GGML_API struct ggml_thing * ggml_make(int n, ggml_callback call);
GGML_API void ggml_fill(const float * GGML_RESTRICT x, int sections[GGML_WIDTH]);
GGML_DEPRECATED(GGML_API int ggml_old(int a, int (*f)(int)), "use ggml_make");
GGML_API GGML_ATTRIBUTE_FORMAT(1, 2) void ggml_print(const char * format, ...);
static inline int ggml_inline(int a) { return a; }
#ifdef _WIN32
GGML_API void ggml_windows(void);
#else
GGML_API void ggml_posix(void);
#endif
#ifdef __cplusplus
}
#endif
"""
CPU = """
struct ggml_pool;
GGML_BACKEND_API struct ggml_pool * ggml_pool_new(int n);
GGML_BACKEND_API void               ggml_pool_free(struct ggml_pool * pool);
"""


@pytest.fixture
def generated(tmp_path: Path) -> tuple[str, str]:
    for name in ("ggml-alloc.h", "ggml-backend.h", "ggml-opt.h", "gguf.h", "ggml-rpc.h"):
        (tmp_path / name).write_text("", encoding="utf-8")
    (tmp_path / "ggml.h").write_text(HEADER, encoding="utf-8")
    (tmp_path / "ggml-cpu.h").write_text(CPU, encoding="utf-8")
    (tmp_path / "own.h").write_text("int pyggml_own(int a);", encoding="utf-8")
    cdef, csrc = tmp_path / "out.cdef", tmp_path / "out.c"
    args = [SCRIPT, tmp_path, tmp_path / "own.h", cdef, csrc]
    subprocess.run([sys.executable, *map(str, args)], check=True)
    return cdef.read_text(encoding="utf-8"), csrc.read_text(encoding="utf-8")


def test_what_is_declared(generated: tuple[str, str]) -> None:
    cdef, _ = generated
    for wanted in ("ggml_make", "ggml_fill", "ggml_print", "ggml_posix", "pyggml_own", "#define GGML_WIDTH ..."):
        assert wanted in cdef
    assert "#define GGML_HEX ..." in cdef
    for unwanted in ("ggml_old", "ggml_ghost", "ggml_inline", "ggml_windows", "GGML_TEXT", "GGML_CALL", "GGML_API"):
        assert unwanted not in cdef


def test_the_compiler_fills_in_values_and_lengths(generated: tuple[str, str]) -> None:
    cdef, _ = generated
    assert "GGML_KIND_A, GGML_KIND_B, ..." in cdef
    assert "int64_t ne[...]" in cdef
    assert "char name[...]" in cdef


def test_functions_of_back_ends_become_pointers(generated: tuple[str, str]) -> None:
    cdef, csrc = generated
    assert "struct ggml_pool * (*ggml_pool_new)(int n);" in " ".join(cdef.split())
    assert "int pyggml_bind_cpu(const char * path);" in cdef
    assert '"ggml_pool_new", "ggml_pool_free"' in csrc


def test_cffi_understands_it(generated: tuple[str, str]) -> None:
    cdef = generated[0]
    own = cdef[: cdef.index("#define RPC") if "#define RPC" in cdef else len(cdef)]
    ffi = cffi.FFI()
    ffi.cdef("enum ggml_log_level { GGML_LOG_LEVEL_NONE, ... }; struct ggml_tensor;")
    ffi.cdef(own)
