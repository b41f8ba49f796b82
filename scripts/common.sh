# Sourced by the scripts beside it: the repository's root, a Python that can build pyggml, environments of their own.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

stop() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# A Python of at least 3.11 that has venv and C headers: $PYTHON if it is set, else the first that fits.
find_python() {
    local candidate path
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.14 python}; do
        path=$("$candidate" - 2>/dev/null <<'PY'
import sys
if sys.version_info >= (3, 11):
    import ensurepip, os, sysconfig, venv
    if os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
        print(sys.executable)
PY
        ) || continue
        if [ -n "$path" ]; then
            printf '%s\n' "$path"
            return
        fi
    done
    stop "no Python 3.11 or newer with venv and C headers was found${PYTHON:+ (PYTHON=$PYTHON was tried)}; install one" \
        "(Debian 12: apt install python3-dev python3-venv, macOS: brew install python) or name it: PYTHON=/path/to/python"
}

# environment FOLDER: a virtual environment at $root/FOLDER; sets $bin to its programs.
environment() {
    local folder=$root/$1 python
    bin=$folder/bin
    if ! "$bin/python" -c 'import pip' 2>/dev/null; then
        python=$(find_python) || return 1
        rm -rf "$folder"
        "$python" -m venv "$folder"
        "$bin/python" -m pip install --quiet --disable-pip-version-check --upgrade pip
    fi
}

# current FOLDER PATH...: true when the environment was installed after the last change of all PATHs.
current() {
    local stamp=$root/$1/.installed
    shift
    [ -e "$stamp" ] && [ -z "$(cd "$root" && find "$@" -name __pycache__ -prune -o -type f -newer "$stamp" -print | head -n 1)" ]
}

installed() {
    touch "$root/$1/.installed"
}

pip_install() {
    "$bin/python" -m pip install --disable-pip-version-check "$@"
}
