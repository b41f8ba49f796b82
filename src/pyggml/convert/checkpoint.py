"""A folder in the layout of Hugging Face models: JSON files and weights as safetensors."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np

from pyggml.closing import Closing
from pyggml.convert.safetensors import SafetensorsFile, SourceTensor
from pyggml.errors import MissingTensorError, ModelError

__all__ = ["Checkpoint", "read_json"]

_MAX_JSON: Final = 256 << 20


class Checkpoint(Closing):
    """An open model folder; a context manager. Weights may lie in several ``*.safetensors`` files.

    Raises:
        ModelError: ``config.json`` or the weights are absent or damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder: Final = Path(folder)
        whole = self.json("config.json")
        text = whole.get("text_config")
        inner = {key: value for key, value in text.items() if key != "architectures"} if isinstance(text, dict) else {}
        self.config: Final[dict[str, Any]] = {**whole, **inner}
        """``config.json``; of a model with several parts, what it says about text is put over the rest."""
        self._stack = ExitStack()
        self._owners: dict[str, SafetensorsFile] = {}
        try:
            for path in self._weight_paths():
                file = self._stack.enter_context(SafetensorsFile(path))
                for name in file.tensors:
                    if name in self._owners:
                        raise ModelError(f"{path}: tensor {name!r}: stands in another file of the model too")
                    self._owners[name] = file
        except BaseException:
            self._stack.close()
            raise

    @property
    def architecture(self) -> str:
        """The first entry of ``architectures`` in ``config.json``.

        Raises:
            ModelError: there is none.
        """
        names = self.config.get("architectures")
        if not isinstance(names, list) or not names or not isinstance(names[0], str):
            raise ModelError(f"{self.folder / 'config.json'}: 'architectures' names no model class")
        return names[0]

    @property
    def tensors(self) -> dict[str, SourceTensor]:
        """All tensors by name."""
        return {name: file.tensors[name] for name, file in self._owners.items()}

    def numpy(self, name: str) -> np.ndarray:
        """A tensor as an array in numpy order.

        Raises:
            MissingTensorError: the model has none of that name.
        """
        if name not in self._owners:
            raise MissingTensorError(f"{self.folder}: the tensor {name!r} is missing")
        return self._owners[name].numpy(name)

    def raw(self, name: str) -> np.ndarray:
        """A tensor as :meth:`numpy` gives it, but BF16 as its bits, in uint16."""
        if name not in self._owners:
            raise MissingTensorError(f"{self.folder}: the tensor {name!r} is missing")
        return self._owners[name].raw(name)

    def integer(self, key: str, *, default: int | None = None) -> int:
        """A positive integer of ``config.json``; null counts as absent."""
        value = default if self.config.get(key) is None else self.config[key]
        if type(value) is not int or not 0 < value < 1 << 31:
            raise ModelError(f"{self.folder / 'config.json'}: {key!r} is {value!r}, a positive integer is needed")
        return value

    def layers(self, key: str = "num_hidden_layers") -> int:
        """The number of layers; each must have tensors."""
        n = self.integer(key)
        if n > len(self._owners):
            raise ModelError(f"{self.folder}: {n} layers cannot lie in {len(self._owners)} tensors")
        return n

    def number(self, key: str, *, default: float | None = None) -> float:
        """A finite number of ``config.json``; null counts as absent."""
        value = default if self.config.get(key) is None else self.config[key]
        return self.checked_number(value, key)

    def checked_number(self, value: Any, key: str) -> float:
        """A value of ``config.json`` as a number."""
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) < 1e38:
            raise ModelError(f"{self.folder / 'config.json'}: {key!r} is {value!r}, a number is needed")
        return float(value)

    def json(self, name: str) -> dict[str, Any]:
        """A JSON file of the folder.

        Raises:
            ModelError: it is absent, damaged or holds no object.
        """
        return read_json(self.folder / name)

    def has(self, name: str) -> bool:
        """Whether the folder has a file of that name."""
        return (self.folder / name).is_file()

    def close(self) -> None:
        """Close the weights."""
        self._stack.close()

    def _weight_paths(self) -> list[Path]:
        # the index decides where there is one: other weights may lie beside it
        if self.has("model.safetensors.index.json"):
            weight_map = self.json("model.safetensors.index.json").get("weight_map")
            names = set(map(str, weight_map.values())) if isinstance(weight_map, dict) else set()
            if not all(Path(n).name == n for n in names):
                raise ModelError(f"{self.folder}: the index of weights points outside the folder")
            paths = [self.folder / name for name in sorted(names)]
        elif self.has("model.safetensors"):
            paths = [self.folder / "model.safetensors"]
        else:
            paths = sorted(self.folder.glob("*.safetensors"))
        missing = [path.name for path in paths if not path.is_file()]
        if not paths or missing:
            raise ModelError(f"{self.folder}: weights are missing ({', '.join(missing) or '*.safetensors'})")
        return paths


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a model folder.

    Raises:
        ModelError: it is absent, damaged or holds no object.
    """
    try:
        if path.stat().st_size > _MAX_JSON:
            raise ModelError(f"{path}: is larger than {_MAX_JSON} bytes")
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ModelError(f"{path}: is missing; a model folder holds its JSON files and *.safetensors") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: is not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: holds no JSON object")
    return value
