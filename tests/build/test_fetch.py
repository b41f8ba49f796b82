"""vendor/ggml/fetch.py: the tree appears, or one line says why not and what to do."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import FILES, PATCH, ROOT, SDIST, Checkout, make_sdist


def test_tree_appears_with_only_what_a_build_needs(checkout: Checkout) -> None:
    run = checkout.fetch()
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"ggml: unpacked {SDIST}, 0 patches\n"
    held = sorted(str(path.relative_to(checkout.tree)) for path in checkout.tree.rglob("*") if path.is_file())
    assert held == [".pyggml-stamp", "CMakeLists.txt", "include/ggml.h", "src/ggml.c"]


def test_ggml_inside_another_project(checkout: Checkout) -> None:
    """The pin says where ggml stands; the licence is the project's."""
    files = {name.replace("ggml/", "vendor/llama/ggml/"): text for name, text in FILES.items()}
    digest = make_sdist(checkout.index, {**files, "LICENSE": "not this one\n", "vendor/llama/LICENSE": "MIT\n"})
    checkout.pin(digest)
    pin = checkout.root / "vendor/ggml/requirements.txt"
    pin.write_text(f"# tree: vendor/llama/ggml\n{pin.read_text()}")
    run = checkout.fetch()
    assert run.returncode == 0, run.stderr
    held = sorted(str(path.relative_to(checkout.tree)) for path in checkout.tree.rglob("*") if path.is_file())
    assert held == [".pyggml-stamp", "CMakeLists.txt", "LICENSE", "include/ggml.h", "src/ggml.c"]
    assert (checkout.tree / "LICENSE").read_text() == "MIT\n"


def test_unpacked_files_are_newer_than_the_archive_says(checkout: Checkout) -> None:
    """The archive's constant time would make ninja believe that a moved pin changed nothing."""
    assert checkout.fetch().returncode == 0
    assert (checkout.tree / "src/ggml.c").stat().st_mtime > 1_500_000_000


def test_a_current_tree_asks_nothing_of_the_network(checkout: Checkout) -> None:
    assert checkout.fetch().returncode == 0
    (checkout.index / SDIST).unlink()
    for kept in checkout.root.glob("vendor/ggml/download/*"):
        kept.unlink()
    assert checkout.fetch().stdout == "ggml: current\n"


def test_a_download_is_kept_and_verified(checkout: Checkout) -> None:
    assert checkout.fetch().returncode == 0
    (checkout.index / SDIST).unlink()
    (checkout.tree / ".pyggml-stamp").unlink()
    assert checkout.fetch().returncode == 0
    (checkout.tree / ".pyggml-stamp").unlink()
    (checkout.root / "vendor/ggml/download" / SDIST).write_bytes(b"broken")
    assert "lacks the sdist of fakeggml 1.0" in checkout.refused()


def test_patches_are_applied_in_order(checkout: Checkout) -> None:
    (checkout.patches / "0001-two.patch").write_text(PATCH)
    three = PATCH.replace("return 2", "return 3").replace("return 1", "return 2")
    (checkout.patches / "0002-three.patch").write_text(three)
    run = checkout.fetch()
    assert run.stdout == f"ggml: unpacked {SDIST}, 2 patches\n", run.stderr
    assert "return 3" in (checkout.tree / "src/ggml.c").read_text()


def test_a_new_patch_makes_a_new_tree(checkout: Checkout) -> None:
    assert checkout.fetch().returncode == 0
    (checkout.patches / "0001-two.patch").write_text(PATCH)
    assert "1 patches" in checkout.fetch().stdout
    assert "return 2" in (checkout.tree / "src/ggml.c").read_text()


def test_patches_apply_inside_a_git_checkout(checkout: Checkout) -> None:
    """git takes the surrounding repository for the tree unless it is told not to look."""
    (checkout.root / ".git").mkdir()
    (checkout.root / ".git/HEAD").write_text("ref: refs/heads/main\n")
    (checkout.root / ".git/objects").mkdir()
    (checkout.root / ".git/refs").mkdir()
    (checkout.patches / "0001-two.patch").write_text(PATCH)
    assert checkout.fetch().returncode == 0
    assert "return 2" in (checkout.tree / "src/ggml.c").read_text()


def test_patch_that_does_not_apply(checkout: Checkout) -> None:
    assert checkout.fetch().returncode == 0
    (checkout.patches / "0001-stale.patch").write_text(PATCH.replace("return 1", "return 7"))
    said = checkout.refused()
    assert "patch 0001-stale.patch does not apply" in said
    assert "refresh or drop it, see patches/README.md" in said
    assert (checkout.tree / "src/ggml.c").read_text() == FILES["ggml/src/ggml.c"], "the old tree must stay"


def test_patches_without_git(checkout: Checkout, tmp_path: Path) -> None:
    (checkout.patches / "0001-two.patch").write_text(PATCH)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "install one of them" in checkout.refused(PATH=str(empty))
    for tool in ("/usr/bin/patch", "/opt/homebrew/bin/patch"):
        if Path(tool).exists():
            (empty / "patch").symlink_to(tool)
            run = checkout.fetch(PATH=str(empty))
            assert run.returncode == 0, run.stderr
            assert "return 2" in (checkout.tree / "src/ggml.c").read_text()


def test_hash_mismatch(checkout: Checkout) -> None:
    checkout.pin("0" * 64)
    said = checkout.refused()
    assert "hash mismatch" in said
    assert "fakeggml 1.0" in said
    assert "check the index or mirror you use" in said


def test_index_lacks_the_package(checkout: Checkout) -> None:
    (checkout.index / SDIST).unlink()
    said = checkout.refused()
    assert "your package index lacks the sdist of fakeggml 1.0" in said
    assert "PIP_INDEX_URL" in said
    assert "PYGGML_GGML_SOURCE" in said


@pytest.mark.parametrize(
    ("index", "retries"), [("https://127.0.0.1:9/simple", "0"), ("https://index.invalid/simple", "1")]
)
def test_offline(checkout: Checkout, index: str, retries: str) -> None:
    said = checkout.refused(PIP_NO_INDEX="0", PIP_INDEX_URL=index, PIP_FIND_LINKS="", PIP_RETRIES=retries)
    assert "offline: pip could not reach your package index for fakeggml 1.0" in said
    assert "PYGGML_GGML_SOURCE" in said


def test_python_without_pip(checkout: Checkout, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    assert "has no pip: install pip" in checkout.refused(python=str(tmp_path / "bare/bin/python"))


def test_package_of_another_layout(checkout: Checkout) -> None:
    checkout.pin(make_sdist(checkout.index, {k: v for k, v in FILES.items() if not k.startswith("ggml/")}))
    assert "no ggml/CMakeLists.txt" in checkout.refused()


def test_requirements_without_a_pin(checkout: Checkout) -> None:
    (checkout.root / "vendor/ggml/requirements.txt").write_text("fakeggml>=1.0\n")
    assert "no line of the form NAME==VERSION --hash=sha256:HEX" in checkout.refused()


def test_hostile_member_names_stay_outside(checkout: Checkout) -> None:
    """pip refuses such an archive itself; one that was put into the download folder must not get further."""
    digest = make_sdist(checkout.root / "vendor/ggml/download", {**FILES, "ggml/src/../../../escaped": "x"})
    checkout.pin(digest)
    assert checkout.fetch().returncode == 0
    assert not list(checkout.root.rglob("escaped"))


def test_the_committed_pin_and_patches() -> None:
    text = (ROOT / "vendor/ggml/requirements.txt").read_text()
    assert re.search(r"^llama-cpp-python==\S+ \\\n +--hash=sha256:[0-9a-f]{64}$", text, re.M)
    for patch in sorted(ROOT.glob("patches/*.patch")):
        head = patch.read_text().split("\n---", 1)[0]
        assert re.match(r"\d{4}-", patch.name), patch.name
        assert "Problem:" in head, f"{patch.name}: say what users see without it"
        assert "Drop when:" in head, f"{patch.name}: say when it can go"


def test_fake_sdist_is_never_built(checkout: Checkout) -> None:
    """Its build requirement is on no index: the download must not ask for it."""
    assert "not-on-any-index" in FILES["pyproject.toml"]
    assert checkout.fetch(PYTHONPATH=os.environ.get("PYTHONPATH", "")).returncode == 0
