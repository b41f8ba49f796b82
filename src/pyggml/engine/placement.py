"""Which device computes which part of a model.

Layers are counted as llama.cpp does it: a model of ``n`` layers has ``n + 1``, the output being the last, and the last
ones go to the devices first. The table of token embeddings stays on the CPU: rows are looked up there at no cost.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from pyggml.errors import BackendError, ParameterError
from pyggml.gguf import GGUFFile
from pyggml.tensor import Device, DeviceType, devices, find_device, find_devices
from pyggml.weights import Use

from .config import EngineConfig

__all__ = ["Placement", "choose_accelerators", "choose_devices", "count_layers", "layer_of", "place", "split_layers"]

_LAYER = re.compile(r"^blk\.(\d+)\.")
_INPUTS = ("token_embd", "position_embd", "token_types")


def layer_of(name: str) -> int | None:
    """The layer that a weight belongs to: 7 for ``blk.7.attn_q.weight``; None: it is of no layer."""
    found = _LAYER.match(name)
    return int(found[1]) if found else None


def count_layers(file: GGUFFile) -> int:
    """How many layers the tensors of a file speak of."""
    return 1 + max((layer for name in file.tensors if (layer := layer_of(name)) is not None), default=-1)


@dataclass(frozen=True)
class Placement:
    """Where everything goes. Numbers are indices of ``devices``, of which the last is the CPU.

    Attributes:
        devices: in the order of preference.
        layers: the device of each layer.
        output: the device of the output and of what belongs to no layer.
        inputs: the device of the tables that tokens are looked up in.
        rules: weights whose name the pattern finds live on that device.
        kv_offload: whether keys and values live on their layer's device, or on the CPU.
    """

    devices: tuple[Device, ...]
    layers: tuple[int, ...]
    output: int
    inputs: int
    rules: tuple[tuple[re.Pattern[str], int], ...] = ()
    kv_offload: bool = True

    @property
    def cpu(self) -> int:
        """The index of the CPU."""
        return len(self.devices) - 1

    def index_of(self, name: str, use: Use) -> int:
        """The device that a weight is meant for."""
        for pattern, device in self.rules:
            if pattern.search(name):
                return device
        layer = layer_of(name)
        if layer is not None:
            return self.layers[layer] if layer < len(self.layers) else self.cpu
        if name.startswith(_INPUTS) and use is not Use.MUL_MAT:  # as a product it is the tied output
            return self.inputs
        return self.output

    def devices_for(self, name: str, use: Use) -> list[Device]:
        """The devices to try for a weight, the CPU last."""
        return [self.devices[i] for i in dict.fromkeys((self.index_of(name, use), self.cpu))]

    def cache_device(self, layer: int) -> int:
        """The device that holds the keys and values of a layer."""
        return self.layers[layer] if self.kv_offload and layer < len(self.layers) else self.cpu

    @property
    def n_gpu_layers(self) -> int:
        """Layers that are not on the CPU, the output counted as one."""
        return sum(device != self.cpu for device in (*self.layers, self.output))

    def layers_on(self, device: int) -> int:
        """Layers on a device, the output counted as one."""
        return (*self.layers, self.output).count(device)

    def only_used(self) -> "Placement":
        """Without devices that get nothing; the CPU stays."""
        used = {*self.layers, self.output, self.inputs, self.cpu, *(device for _, device in self.rules)}
        new = {old: i for i, old in enumerate(sorted(used))}
        return replace(
            self,
            devices=tuple(self.devices[old] for old in new),
            layers=tuple(new[i] for i in self.layers),
            output=new[self.output],
            inputs=new[self.inputs],
            rules=tuple((pattern, new[i]) for pattern, i in self.rules),
        )


def choose_devices(config: EngineConfig) -> list[Device]:
    """The devices that a configuration names and that hold layers, without the CPU at their end.

    Raises:
        BackendError: there is no such device, or nothing answers under an address.
        ParameterError: a name is not understood, or a device is named twice.
    """
    names = list(config.devices)
    if not names and config.device.lower() != "cpu":
        names = [config.device]
    if not names and config.n_gpu_layers:
        try:
            return find_devices("gpus")
        except BackendError:
            return []  # as llama.cpp: layers that no GPU takes stay on the CPU
    found = [device for name in names for device in find_devices(name)]
    twice = {d.name for d in found if sum(other.name == d.name for other in found) > 1}
    if twice:
        raise ParameterError(f"devices: {', '.join(sorted(twice))} is named twice; leave one out")
    return [device for device in found if not device.is_cpu and device.type != DeviceType.ACCEL]


def choose_accelerators(config: EngineConfig) -> list[Device]:
    """BLAS and its like, which hold no layers, but take large products from the CPU, in its memory: those that a
    configuration names. On macOS all of them, because Accelerate reaches units that ggml's own kernels do not;
    elsewhere ggml's kernels are often the faster ones.
    """
    named = {name.lower() for name in (config.device, *config.devices)}
    every = sys.platform == "darwin"
    return [d for d in devices() if d.type == DeviceType.ACCEL and (every or d.name.lower() in named)]


def place(
    config: EngineConfig, devices: Sequence[Device], *, n_layer: int, counts: Sequence[int] | None = None
) -> Placement:
    """The placement that a configuration asks for.

    Args:
        config: the options.
        devices: as from :func:`choose_devices`.
        n_layer: layers of the model, the output not counted.
        counts: how many layers each device gets, the output counted; None: by ``n_gpu_layers`` (all where it is None
            or -1) and ``tensor_split``.

    Raises:
        ParameterError: ``tensor_split`` does not fit the devices, or an override names a device that is not among them.
    """
    everyone = (*devices, find_device("CPU"))
    cpu = len(devices)
    split = list(config.tensor_split) or [1.0] * len(devices)
    if len(split) != len(devices):
        raise ParameterError(
            f"tensor_split has {len(split)} proportions for {len(devices)} devices "
            f"({', '.join(d.name for d in devices) or 'none'}); give one for each, and name the devices"
        )
    if not config.placed:
        first = 0  # with a single device everything goes there
        return Placement(everyone, (first,) * n_layer, output=first, inputs=first)
    if counts is None:
        wanted = config.n_gpu_layers
        n_gpu = n_layer + 1 if wanted is None or wanted < 0 else min(wanted, n_layer + 1)
        counts = split_layers(n_gpu if devices else 0, split)
    assigned = [cpu] * (n_layer + 1 - sum(counts))
    assigned += [device for device, count in enumerate(counts) for _ in range(count)]
    placement = Placement(everyone, tuple(assigned[:-1]), assigned[-1], cpu, kv_offload=config.kv_offload)
    return replace(placement, rules=_rules(config, everyone))


def split_layers(n: int, proportions: Sequence[float]) -> list[int]:
    """``n`` layers in ``proportions``, as whole numbers that add up to ``n``."""
    total = sum(proportions)
    if not proportions or not total:
        return [0] * len(proportions)
    ends = [round(n * part / total) for part in accumulate(proportions)]
    return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]


def _rules(config: EngineConfig, devices: Sequence[Device]) -> tuple[tuple[re.Pattern[str], int], ...]:
    rules = []
    for pattern, name in config.overrides:
        matches = [i for i, device in enumerate(devices) if device.name.lower() == name.lower()]
        if name.lower().startswith("rpc://"):
            offered = {device.name for device in find_devices(name)}
            matches = [i for i, device in enumerate(devices) if device.name in offered]
        if not matches:
            raise ParameterError(
                f"tensor_overrides: {pattern!r} goes to {name!r}, which is not among the devices "
                f"({', '.join(device.name for device in devices)}); name it in devices, too"
            )
        rules.append((re.compile(pattern), matches[0]))
    return tuple(rules)
