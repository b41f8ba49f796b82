"""Derive the cffi declarations from ggml's own headers, at build time.

Usage: ``python gen_cdef.py INCLUDE_DIR OWN_HEADER... CDEF_OUT CSRC_OUT``

Every function, struct, enum and integer macro of ``LINKED`` is declared as is; the C compiler then checks each
declaration against the header (cffi API mode), so a change of signature in a newer ggml is a build error.

The functions of ``DYNAMIC`` live in back-end libraries opened at run time (``GGML_BACKEND_DL``), so they cannot
be linked. For those a struct of function pointers is generated, together with ``pyggml_bind_<name>()``, which
fills it from an open library: ``lib.pyggml_cpu.ggml_threadpool_new(...)``.
"""

import re
import sys
from pathlib import Path

LINKED = ["ggml.h", "ggml-alloc.h", "ggml-backend.h", "ggml-opt.h", "gguf.h"]
DYNAMIC = {"cpu": "ggml-cpu.h", "rpc": "ggml-rpc.h"}
# Macros that never become part of a declaration.
ERASED = ("GGML_API", "GGML_BACKEND_API", "GGML_NORETURN", "GGML_RESTRICT")
# Deprecated functions are left out: each has a successor.
DROPPED = ("GGML_DEPRECATED", "GGML_ATTRIBUTE_FORMAT")
FUNCTION = re.compile(r"^(?P<result>[\w\s*]+?[\s*])(?P<name>(?:ggml|gguf)\w+)\s*\((?P<args>.*)\)$", re.S)

CALLBACKS = """
extern "Python" void pyggml_on_log(enum ggml_log_level level, const char * text, void * user_data);
extern "Python" void pyggml_on_abort(const char * error_message);
extern "Python" bool pyggml_on_eval(struct ggml_tensor * t, bool ask, void * user_data);
extern "Python" bool pyggml_on_compute_abort(void * user_data);
extern "Python" void pyggml_on_custom(struct ggml_tensor * dst, int ith, int nth, void * user_data);
"""

BIND = """
static struct pyggml_{key}_api pyggml_{key};
static int pyggml_bind_{key}(const char * path) {{
    static const char * const names[] = {{ {names} }};
    return pyggml_bind(path, names, (void **) &pyggml_{key}, (int) (sizeof(names) / sizeof(names[0])));
}}
"""


def strip_comments(text: str) -> str:
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
    return re.sub(r"//[^\n]*", "", text).replace("\\\n", " ")


def preprocess(text: str) -> tuple[str, list[str]]:
    """Keep the branches that a C compiler on POSIX would, and collect the names of integer macros."""
    kept: list[str] = []
    macros: list[str] = []
    live = [True]
    for line in text.splitlines():
        directive = re.match(r"\s*#\s*(\w+)\s*(.*)", line)
        if directive is None:
            if all(live):
                kept.append(line)
            continue
        word, rest = directive.group(1), directive.group(2).strip()
        if word in ("if", "ifdef"):
            live.append(False)  # __cplusplus, _WIN32, GGML_SHARED ...: none matters to a declaration
        elif word == "ifndef":
            live.append(True)
        elif word in ("else", "elif"):
            live[-1] = word == "else" and not live[-1]
        elif word == "endif":
            live.pop()
        elif word == "define" and all(live):
            macro = re.match(r"(\w+)\s+\(?-?(0x[0-9a-fA-F]+|\d+)\)?\s*$", rest)
            if macro:
                macros.append(macro.group(1))
    return "\n".join(kept), macros


def drop_calls(text: str, macro: str) -> str:
    """Remove ``MACRO(...)``, with nested parentheses respected."""
    while match := re.search(rf"\b{macro}\s*\(", text):
        depth, end = 1, match.end()
        while depth:
            depth += (text[end] == "(") - (text[end] == ")")
            end += 1
        text = text[: match.start()] + text[end:]
    return text


def statements(text: str) -> list[str]:
    """Split a preprocessed header at top-level semicolons."""
    found, depth, current = [], 0, []
    for char in text:
        current.append(char)
        depth += (char == "{") - (char == "}")
        body = char == "}" and depth == 0 and "".join(current).lstrip().startswith("static ")  # ends without ";"
        if depth == 0 and (char == ";" or body):
            found.append(" ".join("".join(current).split()))
            current = []
    return found


def relax(statement: str) -> str:
    """Let the compiler fill in enum values and array lengths."""
    if re.match(r"(typedef )?enum\b.*\{", statement):
        head, body, tail = re.match(r"(.*?)\{(.*)\}(.*)", statement).groups()  # type: ignore[union-attr]
        names = [item.split("=")[0].strip() for item in body.split(",") if item.strip()]
        return f"{head}{{ {', '.join(names)}, ... }}{tail}"
    if re.match(r"(typedef )?struct\b.*\{", statement):
        return re.sub(r"\[[^\]]*[A-Za-z*/][^\]]*\]", "[...]", statement)
    return re.sub(r"\[[^\]]*[A-Za-z][^\]]*\]", "[]", statement)


def declarations(header: Path) -> tuple[list[str], list[str]]:
    text, macros = preprocess(strip_comments(header.read_text(encoding="utf-8")))
    for macro in DROPPED:
        text = drop_calls(text, macro)
    text = re.sub(r"\b(" + "|".join(ERASED) + r")\b", "", text)
    wanted = [s for s in statements(text) if s != ";" and not s.startswith(("static ", "static_assert"))]
    return [relax(s) for s in wanted], macros


def function_pointers(header: Path, key: str) -> tuple[list[str], str, str]:
    """Types of a dynamic header, the struct of its functions, and the C that binds it."""
    types, fields, names = [], [], []
    found, macros = declarations(header)
    for statement in found:
        match = FUNCTION.match(statement.rstrip(";").strip())
        if match and not statement.startswith("typedef"):
            fields.append(f"    {match['result']} (*{match['name']})({match['args']});")
            names.append(match["name"])
        else:
            types.append(statement)
    types += [f"#define {name} ..." for name in macros]
    struct = f"struct pyggml_{key}_api {{\n" + "\n".join(fields) + "\n};\n"
    bind = BIND.format(key=key, names=", ".join(f'"{n}"' for n in names))
    return types, struct, bind


def main(include: Path, own: list[Path], cdef_out: Path, csrc_out: Path) -> None:
    cdef: list[str] = []
    csrc = [f'#include "{name}"' for name in [*LINKED, *DYNAMIC.values()]]
    csrc += [f'#include "{header.name}"' for header in own]
    for name in LINKED:
        found, macros = declarations(include / name)
        cdef += [f"#define {macro} ..." for macro in macros]
        cdef += found
    for key, name in DYNAMIC.items():
        types, struct, bind = function_pointers(include / name, key)
        cdef += types + [
            struct,
            f"extern struct pyggml_{key}_api pyggml_{key};",
            f"int pyggml_bind_{key}(const char * path);",
        ]
        csrc += [struct, bind]
    cdef += [preprocess(strip_comments(header.read_text(encoding="utf-8")))[0] for header in own]
    cdef.append(CALLBACKS)
    cdef = list(dict.fromkeys(cdef))  # headers repeat each other's opaque typedefs
    cdef_out.write_text("\n".join(cdef), encoding="utf-8")
    csrc_out.write_text("\n".join(csrc), encoding="utf-8")


if __name__ == "__main__":
    include, *own, cdef, csrc = (Path(arg) for arg in sys.argv[1:])
    main(include, own, cdef, csrc)
