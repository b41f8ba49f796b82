"""Whether a model fits, and how many of its layers: measured by putting it together without loading it.

As in Ollama's newer runners: lay the layers out, reserve the graphs without taking memory, compare what each device
would need with what it has, and lay them out again, until the layout repeats.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from pyggml.errors import OutOfMemoryError
from pyggml.gguf import GGUFFile
from pyggml.tensor import Backend, Device, find_device

from .assembly import Assembly, Need
from .config import EngineConfig
from .placement import Placement, choose_devices, count_layers, place, split_layers

__all__ = [
    "DeviceFit",
    "Fit",
    "Measured",
    "assign_layers",
    "find_placement",
    "fit",
    "measure_placement",
    "open_placement",
]

ROUNDS = 16
STEPS = 20  # of the search for the evenest filling: a millionth


@dataclass(frozen=True)
class Measured:
    """What one placement needs.

    Attributes:
        placement: what goes where.
        needs: for each of its devices.
        layers: bytes of weights and cache per layer and device; the last row is the output.
        n_ctx: positions of a sequence.
        flash_attn: whether attention is fused.
    """

    placement: Placement
    needs: tuple[Need, ...]
    layers: tuple[tuple[int, ...], ...]
    n_ctx: int
    flash_attn: bool


def measure_placement(
    file: GGUFFile, backends: Sequence[Backend], placement: Placement, config: EngineConfig
) -> Measured:
    """Put the model together without memory and count.

    Args:
        file: the model's file.
        backends: of ``placement.devices``, or of more.
        placement: what goes where.
        config: the other options.

    Raises:
        OutOfMemoryError: with ``kv_offload=False`` graphs are laid out in real memory, and a device has none.
        GGUFError, ModelError, ParameterError: as when the model is loaded.
    """
    by_name = {backend.device.name: backend for backend in backends}
    chosen = [by_name[device.name] for device in placement.devices]
    with Assembly(file, chosen, placement, config, dry=True) as dry:
        rows = tuple(tuple(row) for row in dry.layer_sizes())
        return Measured(placement, tuple(dry.needs()), rows, dry.n_ctx, dry.flash_attn)


def find_placement(
    file: GGUFFile, backends: Sequence[Backend], config: EngineConfig, *, free: Sequence[int]
) -> Measured:
    """As many layers on the devices as fit, the last ones first.

    Args:
        file: the model's file.
        backends: of all devices, the CPU last.
        config: ``tensor_split`` and ``memory_margin`` count, ``n_gpu_layers`` does not.
        free: bytes that each device but the CPU has.

    Raises:
        GGUFError, ModelError, ParameterError: as when the model is loaded.
    """
    devices = [backend.device for backend in backends[:-1]]
    n_layer = count_layers(file)
    room = [max(0, n - config.memory_margin) for n in free]
    known: dict[tuple[int, ...], Measured | None] = {}

    def measured(counts: Sequence[int]) -> Measured:
        return measure_placement(file, backends, place(config, devices, n_layer=n_layer, counts=counts), config)

    def attempt(counts: Sequence[int]) -> Measured | None:
        """None: not even the graph can be laid out."""
        key = tuple(counts)
        if key not in known:
            try:
                known[key] = measured(key)
            except OutOfMemoryError:
                known[key] = None
        return known[key]

    proportions = list(config.tensor_split) or [max(n, 1) for n in room]
    everything = attempt(split_layers(n_layer + 1, proportions))
    if everything is None:
        return measured([0] * len(devices))
    items, elsewhere = _split_rows(everything)
    reserved = [need.compute + more for need, more in zip(everything.needs[:-1], elsewhere, strict=True)]
    best: Measured | None = None
    tried: set[tuple[int, ...]] = set()
    while len(tried) < ROUNDS:
        budgets = [have - need for have, need in zip(room, reserved, strict=True)]
        counts = tuple(assign_layers(items, budgets, split=config.tensor_split))
        if counts in tried or not any(counts):
            break
        tried.add(counts)
        found = attempt(counts)
        if found is None:
            reserved = [need + have // 10 for need, have in zip(reserved, room, strict=True)]
            continue
        over = [max(0, need.total - have) for need, have in zip(found.needs[:-1], room, strict=True)]
        compute = [need.compute + more for need, more in zip(found.needs[:-1], elsewhere, strict=True)]
        if any(over):
            reserved = [max(pair) + more for *pair, more in zip(reserved, compute, over, strict=True)]
        else:
            best = found if best is None or sum(counts) > best.placement.n_gpu_layers else best
            reserved = compute
    return best or measured([0] * len(devices))


def _split_rows(measured: Measured) -> tuple[list[int], list[int]]:
    """Bytes of each layer on its device, and what rules put on each device besides."""
    p = measured.placement
    items, elsewhere = [], [0] * p.cpu
    for device, row in zip((*p.layers, p.output), measured.layers, strict=True):
        items.append(row[device])
        for other in range(p.cpu):
            elsewhere[other] += row[other] if other != device else 0
    return items, elsewhere


def assign_layers(items: Sequence[int], budgets: Sequence[int], *, split: Sequence[float] = ()) -> list[int]:
    """How many of the last ``items`` each device gets, so that as many as possible have a place.

    Args:
        items: bytes of each layer, the output last.
        budgets: bytes that each device can hold.
        split: fixed proportions; empty: filled evenly, measured by what each can hold.
    """
    for n in range(len(items), 0, -1):
        part = items[len(items) - n :]
        if split:
            counts = split_layers(n, split)
            begins = [sum(counts[:i]) for i in range(len(counts))]
            sums = [sum(part[begin : begin + count]) for begin, count in zip(begins, counts, strict=True)]
            if all(total <= budget or not count for total, budget, count in zip(sums, budgets, counts, strict=True)):
                return counts
        elif (filled := _fill(part, budgets, 1.0)) is not None:
            return _fill_evenly(part, budgets, filled)
    return [0] * len(budgets)


def _fill(items: Sequence[int], budgets: Sequence[int], factor: float) -> list[int] | None:
    """Fill one device after the other up to a part of its budget; None: something is left."""
    counts = [0] * len(budgets)
    device, used = 0, 0
    for size in items:
        while device < len(budgets) and used + size > factor * budgets[device]:
            device, used = device + 1, 0
        if device == len(budgets):
            return None
        counts[device] += 1
        used += size
    return counts


def _fill_evenly(items: Sequence[int], budgets: Sequence[int], counts: list[int]) -> list[int]:
    """The smallest part of all budgets that is enough, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(STEPS if len(budgets) > 1 else 0):
        middle = (low + high) / 2
        found = _fill(items, budgets, middle)
        low, high = (middle, high) if found is None else (low, middle)
        counts = found or counts
    return counts


@dataclass(frozen=True)
class DeviceFit:
    """One device of a :class:`Fit`. Sizes are in bytes."""

    device: Device
    total: int
    free: int
    need: Need
    layers: int

    @property
    def fits(self) -> bool:
        """Whether what is free is enough."""
        return self.need.total <= self.free


@dataclass(frozen=True)
class Fit:
    """What would happen if a model were loaded.

    Attributes:
        devices: each with what it has and what it would have to hold.
        measured: the placement behind it.
        most_layers: how many layers would fit, where a number was asked for that does not.
    """

    devices: tuple[DeviceFit, ...]
    measured: Measured
    most_layers: int | None = None

    @property
    def fits(self) -> bool:
        """Whether every device has room."""
        return all(device.fits for device in self.devices)

    @property
    def n_layers(self) -> int:
        """Layers of the model, the output counted as one."""
        return len(self.measured.placement.layers) + 1


def open_placement(
    file: GGUFFile, config: EngineConfig, stack: ExitStack
) -> tuple[Placement, list[Backend], list[tuple[int, int]]]:
    """Decide where a model goes, and open the devices that it needs.

    Args:
        file: the model's file.
        config: the options.
        stack: closes the back ends.

    Returns:
        the placement, one back end for each of its devices, and free and total memory of each.

    Raises:
        BackendError: there is no such device. ParameterError: options that do not go together.
        GGUFError, ModelError: the file cannot be run.
    """
    devices = choose_devices(config)
    backends = [
        stack.enter_context(Backend(device, n_threads=config.n_threads)) for device in (*devices, find_device("CPU"))
    ]
    memory = [backend.device.memory() for backend in backends]  # with what opening a device takes
    if devices and config.placed and config.n_gpu_layers in (None, -1):
        placement = find_placement(file, backends, config, free=[free for free, _ in memory[:-1]]).placement
    else:
        placement = place(config, devices, n_layer=count_layers(file))
    placement = placement.only_used()
    names = [device.name for device in placement.devices]
    for backend in backends:
        if backend.device.name not in names:
            backend.close()
    kept = [i for i, backend in enumerate(backends) if backend.device.name in names]
    return placement, [backends[i] for i in kept], [memory[i] for i in kept]


def fit(path: str | Path, config: EngineConfig) -> Fit:
    """Measure what a model would take on its devices, without loading it.

    Raises:
        GGUFError, ModelError: the file cannot be run. BackendError: there is no such device.
        ParameterError: options that do not go together.
        OutOfMemoryError: not even its graphs can be laid out.
    """
    with ExitStack() as stack:
        file = stack.enter_context(GGUFFile(Path(path)))
        placement, backends, memory = open_placement(file, config, stack)
        measured = measure_placement(file, backends, placement, config)
        devices = tuple(
            DeviceFit(device, total, free, need, placement.layers_on(i))
            for i, (device, (free, total), need) in enumerate(
                zip(placement.devices, memory, measured.needs, strict=True)
            )
        )
        asked = not config.placed or config.n_gpu_layers not in (None, -1)
        if asked and not all(device.fits for device in devices[:-1]):
            free = [each for each, _ in memory[:-1]]
            automatic = replace(config, n_gpu_layers=-1)
            return Fit(devices, measured, find_placement(file, backends, automatic, free=free).placement.n_gpu_layers)
        return Fit(devices, measured)
