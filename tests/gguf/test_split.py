"""Models that are split into several files."""

from pathlib import Path

import numpy as np
import pytest

from pyggml.gguf import GGUFError, GGUFFile, GGUFWriter, ValueType, copy_gguf


def write_parts(folder: Path, *, count: int = 3) -> list[Path]:
    paths = []
    for no in range(count):
        path = folder / f"model-{no + 1:05}-of-{count:05}.gguf"
        writer = GGUFWriter(path, architecture="llama" if no == 0 else None)
        writer.add("split.no", no, type=ValueType.UINT16)
        writer.add("split.count", count, type=ValueType.UINT16)
        writer.add("split.tensors.count", 2 * count, type=ValueType.INT32)
        for name in "ab":
            writer.add_tensor(f"{name}.{no}", np.full(5 + no, no, np.float32))
        writer.write()
        paths.append(path)
    return paths


def test_all_parts_are_one(tmp_path: Path) -> None:
    paths = write_parts(tmp_path)
    with GGUFFile(paths[0]) as file:
        assert file.parts == tuple(paths)
        assert list(file.tensors) == ["a.0", "b.0", "a.1", "b.1", "a.2", "b.2"]
        assert file.tensors["b.2"].part == 2
        assert np.frombuffer(file.data("b.2"), np.float32).tolist() == [2.0] * 7
        assert file.size == sum(p.stat().st_size for p in paths)
        info = file.tensors["a.1"]
        assert bytes(file.mapping(part=1)[info.offset :][: info.n_bytes]) == bytes(file.data("a.1"))


def test_parts_are_joined(tmp_path: Path) -> None:
    paths = write_parts(tmp_path)
    with GGUFFile(paths[0]) as file:
        copy_gguf(file, tmp_path / "whole.gguf")
        with GGUFFile(tmp_path / "whole.gguf") as whole:
            assert list(whole.metadata) == ["general.architecture"]
            assert all(bytes(whole.data(n)) == bytes(file.data(n)) for n in file.tensors)


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    paths = write_parts(tmp_path)
    paths[1].unlink()
    with pytest.raises(GGUFError, match=r"model-00002-of-00003\.gguf: part 2 of 3 .* is missing"):
        GGUFFile(paths[0])


def test_a_later_part_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GGUFError, match=r"part 1 \(from 0\) of 3; open the first part"):
        GGUFFile(write_parts(tmp_path)[1])


def test_a_part_of_another_model_is_refused(tmp_path: Path) -> None:
    paths = write_parts(tmp_path)
    paths[2].write_bytes(paths[1].read_bytes())
    with pytest.raises(GGUFError, match=r"00003\.gguf: key 'split.no': is 1, should be 2"):
        GGUFFile(paths[0])


def test_a_renamed_first_part_is_refused(tmp_path: Path) -> None:
    path = write_parts(tmp_path)[0].rename(tmp_path / "model.gguf")
    with pytest.raises(GGUFError, match="must be called NAME-00001-of-00003"):
        GGUFFile(path)


def test_tensors_that_are_in_no_part_are_told(tmp_path: Path) -> None:
    paths = write_parts(tmp_path)
    writer = GGUFWriter(paths[2])
    writer.add("split.no", 2)
    writer.add("split.count", 3)
    writer.write()
    with pytest.raises(GGUFError, match=r"split\.tensors\.count.*is 6, the parts hold 4"):
        GGUFFile(paths[0])
