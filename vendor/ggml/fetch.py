"""Make ``vendor/ggml/src`` appear: download the pinned sdist, verify it, unpack ggml, apply our patches.

Called by CMake, also by hand: ``python vendor/ggml/fetch.py``. The download goes through the user's own ``pip``, so the
user's index, proxy and mirror settings hold. A stamp in the tree holds the digest of pin and patches: when it is
current, nothing is done and nothing is asked of the network, which is how the sdist of pyggml builds offline.

Exit status 1 with one line on standard error when it cannot be done.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

HERE = Path(__file__).resolve().parent
# What a build needs of upstream's tree; its tests, examples and CI stay behind.
WANTED = ("CMakeLists.txt", "LICENSE", "AUTHORS", "ggml.pc.in", "cmake", "include", "src")
OFFLINE = (
    "NewConnectionError",
    "Max retries",
    "NameResolutionError",
    "name resolution",
    "ConnectTimeout",
    "ProxyError",
)


class FetchError(Exception):
    """One line: what failed and the next step."""


def read_pin(requirements: Path) -> tuple[str, str, str]:
    """Package, version and sha256 of the pinned requirement."""
    text = re.sub(r"#.*", "", requirements.read_text(encoding="utf-8"))
    match = re.search(r"([\w.-]+)==(\S+)\s*\\?\s*--hash=sha256:([0-9a-f]{64})", text)
    if match is None:
        raise FetchError(f"{requirements}: no line of the form NAME==VERSION --hash=sha256:HEX")
    return match.group(1), match.group(2), match.group(3)


def tree_inside(requirements: Path) -> tuple[str, ...]:
    """Where ggml stands inside the sdist: the line ``# tree: PATH`` beside the pin, else ``ggml``."""
    match = re.search(r"^# tree: (\S+)$", requirements.read_text(encoding="utf-8"), re.M)
    return tuple(match.group(1).split("/")) if match else ("ggml",)


def stamp_of(requirements: Path, patches: list[Path]) -> str:
    """The digest that tells whether a tree was made from this pin and these patches."""
    digest = hashlib.sha256("".join(read_pin(requirements)).encode())
    for patch in patches:
        digest.update(patch.read_bytes())
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(requirements: Path, folder: Path) -> Path:
    """The sdist, from ``folder`` if it is there already, else through pip."""
    package, version, want = read_pin(requirements)
    for kept in folder.glob("*.tar.gz"):
        if sha256_of(kept) == want:
            return kept
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "download",
        "--no-deps",
        "--no-build-isolation",
    ]
    command += ["--no-binary", package, "--require-hashes", "-r", str(requirements), "-d", str(folder)]
    path = os.pathsep.join(filter(None, [str(HERE / "shim"), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": path}
    if env.get("PIP_RETRIES") == "0":
        env["PIP_RETRIES"] = "1"  # only when it tries again does pip say that an index cannot be reached
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    output = run.stdout + run.stderr
    if run.returncode != 0:
        raise FetchError(explain(output, package, version))
    for found in folder.glob("*.tar.gz"):
        if sha256_of(found) == want:
            return found
    raise FetchError(f"pip said it downloaded {package} {version}, but {folder} holds no file with the pinned sha256")


def explain(output: str, package: str, version: str) -> str:
    """One line out of what pip printed."""
    instead = "or give a local tree with -Ccmake.define.PYGGML_GGML_SOURCE=/path/to/ggml"
    if "No module named pip" in output:
        return f"ggml's source comes through pip, and {sys.executable} has no pip: install pip, {instead}"
    if "DO NOT MATCH THE HASHES" in output:
        return (
            f"hash mismatch: the index serves another {package} {version} than vendor/ggml/requirements.txt pins; "
            f"check the index or mirror you use, {instead}"
        )
    if any(sign in output for sign in OFFLINE):
        return f"offline: pip could not reach your package index for {package} {version}; connect, {instead}"
    if "No matching distribution" in output or "Could not find a version" in output:
        return (
            f"your package index lacks the sdist of {package} {version}; add it to the mirror, set PIP_INDEX_URL "
            f"(an --index-url on pip's command line does not reach a build), {instead}"
        )
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["no output"]
    reason = next((line for line in lines if "error" in line.lower()), lines[-1])
    return f"pip could not download {package} {version}: {reason}; mend that, {instead}"


def unpack(sdist: Path, inside: tuple[str, ...], into: Path) -> None:
    """Write the wanted part of the sdist's folder ``inside`` to ``into``."""
    depth = 1 + len(inside)  # an sdist has one folder at its top
    with tarfile.open(sdist) as archive:
        for member in archive:
            parts = PurePosixPath(member.name).parts
            if len(inside) > 1 and parts[1:] == (*inside[:-1], "LICENSE"):
                parts = (parts[0], *inside, "LICENSE")  # the project around it has one licence for all its folders
            if parts[1:depth] != inside or len(parts) <= depth or parts[depth] not in WANTED or ".." in parts:
                continue
            # Only plain files, and with the time of now: the archive's constant time would hide a moved pin from ninja.
            if (file := archive.extractfile(member)) is not None:
                target = into.joinpath(*parts[depth:])
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read())
    if not (into / "CMakeLists.txt").is_file():
        raise FetchError(
            f"{sdist.name} has no {'/'.join(inside)}/CMakeLists.txt: mend the line '# tree:' beside the pin"
        )


def apply(patch: Path, tree: Path) -> None:
    """Apply one patch with git or, where there is none, with patch."""
    if git := shutil.which("git"):
        command = [git, "apply", "--whitespace=nowarn", str(patch)]
    elif tool := shutil.which("patch"):
        command = [tool, "-p1", "--forward", "--fuzz=0", "-i", str(patch)]
    else:
        raise FetchError("patches/ needs git or patch to be applied: install one of them")
    # Without the ceiling, git takes the surrounding checkout for the tree and applies nothing.
    env = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tree.parent)}
    run = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        reason = (run.stderr or run.stdout).strip().splitlines()
        raise FetchError(
            f"patch {patch.name} does not apply to the pinned ggml ({reason[0] if reason else 'no reason given'}); "
            "refresh or drop it, see patches/README.md"
        )


def materialise(requirements: Path, patch_folder: Path, tree: Path, downloads: Path) -> str:
    """Bring ``tree`` in line with pin and patches. Returns what was done.

    Raises:
        FetchError: it cannot be done; an existing tree is left as it was.
    """
    patches = sorted(patch_folder.glob("*.patch"))
    stamp = stamp_of(requirements, patches)
    mark = tree / ".pyggml-stamp"
    if mark.is_file() and mark.read_text(encoding="utf-8").strip() == stamp:
        return "current"
    sdist = download(requirements, downloads)
    tree.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="unpack-", dir=tree.parent) as scratch:
        fresh = Path(scratch) / "src"
        fresh.mkdir()
        unpack(sdist, tree_inside(requirements), fresh)
        for patch in patches:
            apply(patch, fresh)
        (fresh / ".pyggml-stamp").write_text(stamp + "\n", encoding="utf-8")
        if tree.exists():
            shutil.rmtree(tree)
        fresh.rename(tree)
    return f"unpacked {sdist.name}, {len(patches)} patches"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requirements", type=Path, default=HERE / "requirements.txt")
    parser.add_argument("--patches", type=Path, default=HERE.parent.parent / "patches")
    parser.add_argument("--tree", type=Path, default=HERE / "src")
    parser.add_argument("--downloads", type=Path, default=HERE / "download")
    given = parser.parse_args()
    try:
        done = materialise(given.requirements, given.patches, given.tree, given.downloads)
    except FetchError as error:
        print(f"ggml: {error}", file=sys.stderr)
        return 1
    print(f"ggml: {done}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
