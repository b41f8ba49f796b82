"""Every room has one door: its ``__init__``, with a sorted, complete and documented ``__all__``."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"pyggml": ROOT / "src/pyggml", "pyggml_server": ROOT / "server/pyggml_server"}
# Doors that load no native code: the service stands on these.
PURE = ["pyggml", "pyggml.chat", "pyggml.convert", "pyggml.errors", "pyggml.gguf", "pyggml.tokenizer"]
# cffi stays in _ffi and tensor. These hand numpy's memory to ggml or to our C helpers, and nothing else.
FFI_USERS = {
    "pyggml.engine.decoder",
    "pyggml.inputs",
    "pyggml.kvcache.native",
    "pyggml.sampling.sampler",
    "pyggml.weights",
}


def module_name(path: Path) -> str:
    for package, folder in PACKAGES.items():
        if path.is_relative_to(folder):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    raise ValueError(path)


SOURCES = {module_name(path): path for folder in PACKAGES.values() for path in sorted(folder.rglob("*.py"))}
SOURCES.pop("pyggml._ffi.gen_cdef")  # a tool of the build, not part of the package
DOORS = [name for name, path in SOURCES.items() if path.name == "__init__.py"]
WITH_ALL = [*DOORS, *(name for name in SOURCES if name.count(".") == 1 and name not in DOORS)]


def is_documented(value: object) -> bool:
    """Classes and functions need a docstring of their own; constants, enums' members and aliases do not."""
    return not (inspect.isclass(value) or inspect.isroutine(value)) or bool((value.__doc__ or "").strip())


def sort_key(export: str) -> tuple[int, str]:
    """The order that ruff keeps (RUF022): constants, classes, the rest."""
    return (0 if export.isupper() else 1 if export[0].isupper() else 2, export)


@pytest.mark.parametrize("name", WITH_ALL)
def test_exports(name: str) -> None:
    module = importlib.import_module(name)
    assert (module.__doc__ or "").strip(), f"{name} has no docstring"
    listed: list[str] = module.__all__
    assert listed == sorted(set(listed), key=sort_key), f"{name}.__all__ is not sorted, or names something twice"
    for export in listed:
        assert hasattr(module, export), f"{name}.__all__ names {export}, which does not exist"
        assert is_documented(getattr(module, export)), f"{name}.{export} has no docstring"


@pytest.mark.parametrize("name", DOORS)
def test_nothing_public_is_missing(name: str) -> None:
    module = importlib.import_module(name)
    public = {key for key, value in vars(module).items() if key[0] != "_" and not isinstance(value, ModuleType)}
    foreign = {
        key for key in public if getattr(vars(module)[key], "__module__", name).split(".")[0] != name.split(".")[0]
    }
    assert public - foreign - set(module.__all__) == set(), f"add to {name}.__all__, or import under an underscore"


def imports(path: Path, name: str) -> list[str]:
    """The modules that a file imports, relative ones resolved."""
    found = []
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.append(node.module or "")
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            found.append(".".join([*base, *filter(None, [node.module])]))
    return found


def room(name: str) -> str:
    return ".".join(name.split(".")[:2])


@pytest.mark.parametrize("name", SOURCES)
def test_other_rooms_are_entered_by_the_door(name: str) -> None:
    inside = [
        target
        for target in imports(SOURCES[name], name)
        if target.split(".")[0] in PACKAGES and room(target) != room(name) and target not in WITH_ALL
    ]
    assert inside == [], f"{name} reaches past a door"


@pytest.mark.parametrize("name", SOURCES)
def test_cffi_stays_in_its_rooms(name: str) -> None:
    if room(name) in ("pyggml._ffi", "pyggml.tensor") or name in FFI_USERS:
        return
    native = [t for t in imports(SOURCES[name], name) if t.split(".")[0] in ("cffi", "_cffi_backend")]
    native += [t for t in imports(SOURCES[name], name) if room(t) == "pyggml._ffi"]
    assert native == [], f"{name}: only pyggml._ffi and pyggml.tensor touch cffi"


def test_no_module_is_excused_from_the_cffi_rule_for_nothing() -> None:
    using = {name for name in FFI_USERS if any(room(t) == "pyggml._ffi" for t in imports(SOURCES[name], name))}
    assert using == FFI_USERS


def test_pure_rooms_and_the_service_load_no_native_code() -> None:
    # The runner is the process that holds the engine.
    names = [name for name in SOURCES if name.startswith("pyggml_server")]
    service = [name for name in names if not name.startswith("pyggml_server.runner")]
    code = f"import importlib, sys\nfor name in {[*PURE, *service]}: importlib.import_module(name)\n"
    code += "print([name for name in sys.modules if name.startswith(('pyggml._ffi', 'pyggml.tensor'))])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_an_engine_that_only_computes_loads_neither_tokenizers_nor_grammars() -> None:
    # 20 MiB of a process; see benchmarks/README.md.
    code = "import sys, pyggml.engine, pyggml_server.runner.jobs\n"
    code += "print([name for name in ('tokenizers', 'llguidance', '_hashlib', 'filelock') if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
