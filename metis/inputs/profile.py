"""Profiles: time, memory and parameters of every layer per (device type, tensor degree, batch).

Read from upstream Metis' JSON files, one per combination, named
`DeviceType.<TYPE>_tp<T>_bs<B>.json` (spec of the keys: README of upstream Metis).
Times are milliseconds for forward + backward of one micro-batch, memory MB, parameters bytes.
"""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from common.errors import InputError
from common.files import write
from metis.inputs.savings import RECOMPUTES, Recompute, Savings

log = logging.getLogger("metis")

ROUNDING = 1e-6
"""Relative difference of a sum of times that rounding makes."""

_FILE = re.compile(r"^DeviceType\.(\w+)_tp(0|[1-9]\d*)_bs(0|[1-9]\d*)\.json$")


class ProfileKey(NamedTuple):
    """Which profile: device type, tensor-parallel degree, micro-batch size in samples."""

    device: str
    tp: int
    bs: int

    def __str__(self) -> str:
        """Return the upstream's spelling without the folder."""
        return f"DeviceType.{self.device}_tp{self.tp}_bs{self.bs}.json"


class LayerProfile(msgspec.Struct, frozen=True, kw_only=True):
    """One profile. The tuples have one entry per layer, embedding first, output head last."""

    layer_ms: tuple[float, ...]
    memory_mb: tuple[float, ...]
    parameters_bytes: tuple[float, ...]
    forward_backward_ms: float
    optimizer_ms: float
    batch_generator_ms: float
    layernorm_allreduce_ms: float = 0.0
    embedding_allreduce_ms: float = 0.0
    again_ms: dict[Recompute, tuple[float, ...]] = {}
    """What each kind of recomputation adds, where it is known."""

    @property
    def sync_ms(self) -> float:
        """Time of a forward + backward that belongs to no layer: `fb - sum(layers)`."""
        return self.forward_backward_ms - sum(self.layer_ms)


class Profiles:
    """All profiles of an experiment, in a stated order (the original lets the disk decide)."""

    def __init__(self, entries: dict[ProfileKey, LayerProfile], origin: str) -> None:
        if not entries:
            raise InputError(f"{origin}: no profile in it, expected files like {_example()}")
        self.entries = entries
        self.origin = origin
        self.activations_mb = dict[tuple[str, int], tuple[float, ...]]()
        """Activations of one sample by (device, degree) and layer, where one batch is profiled."""
        self.savings: Savings | None = None
        """What recomputation and a sharded optimizer save; None where plans use neither."""
        counts = {len(entry.layer_ms) for entry in entries.values()}
        if len(counts) > 1:
            raise InputError(f"{origin}: profiles disagree on the number of layers: {counts}")
        self.layers = counts.pop()

    def __contains__(self, key: object) -> bool:
        return key in self.entries

    def __getitem__(self, key: ProfileKey) -> LayerProfile:
        return self.entries[key]

    def __iter__(self) -> Iterator[ProfileKey]:
        return iter(self.entries)

    def device_types(self) -> list[str]:
        """Return the profiled device types in reading order."""
        return list(dict.fromkeys(key.device for key in self.entries))

    def batch_sizes(self, device: str, tp: int) -> list[int]:
        """Return the profiled micro-batch sizes of a device type and degree, ascending."""
        return sorted(key.bs for key in self.entries if key.device == device and key.tp == tp)

    def degrees(self, device: str) -> list[int]:
        """Return the profiled tensor degrees of a device type, ascending."""
        return sorted({key.tp for key in self.entries if key.device == device})

    def single(self) -> list[tuple[str, int]]:
        """Return the (device type, degree) pairs of which only one batch is profiled."""
        pairs = dict.fromkeys((key.device, key.tp) for key in self.entries)
        return [pair for pair in pairs if len(self.batch_sizes(*pair)) == 1]

    def fill_savings(self, savings: Savings) -> None:
        """Take what is saved and done again from the model, as shares of what is profiled."""
        self.savings = savings
        again = {kind: savings.again(kind) for kind in RECOMPUTES[1:]}
        for key, entry in self.entries.items():
            times = np.asarray(entry.layer_ms)
            added = {kind: tuple((times * share).tolist()) for kind, share in again.items()}
            self.entries[key] = msgspec.structs.replace(entry, again_ms=added)

    def base(self, device: str) -> LayerProfile:
        """Return the tp 1, bs 1 profile of a type: what per-type constants are taken from."""
        key = ProfileKey(device, 1, 1)
        if key not in self.entries:
            raise InputError(f"{self.origin}: {key} is missing; profile tp 1, bs 1 of each type")
        return self.entries[key]


class _ExecutionTime(msgspec.Struct):
    forward_backward_time_ms: float
    batch_generator_time_ms: float
    optimizer_time_ms: float
    layer_compute_total_ms: list[float]
    total_time_ms: float = 0.0
    layernorm_grads_all_reduce_time_ms: float = 0.0
    embedding_grads_all_reduce_time_ms: float = 0.0


class _ExecutionMemory(msgspec.Struct):
    layer_memory_total_mb: list[float]
    total_memory: float = 0.0


class _Parameters(msgspec.Struct):
    parameters_per_layer_bytes: list[float]
    total_parameters_bytes: float = 0.0


class _ModelFacts(msgspec.Struct):
    parameters: _Parameters
    model_name: str = ""
    num_layers: int = 0


class ProfileFile(msgspec.Struct):
    """Upstream's JSON layout of one profile file (its other keys are ignored)."""

    model: _ModelFacts
    execution_time: _ExecutionTime
    execution_memory: _ExecutionMemory


def read_profiles(folder: Path, *, layers: int, first: ProfileKey | None = None) -> Profiles:
    """Return the profiles of a folder, sorted by (type, tp, bs), `first` (if given) foremost.

    Raises `InputError` naming file, field, found and expected.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; profile.source names a folder of {_example()}")
    keys = _keys(folder)
    order = sorted(keys)
    if first is not None:
        if first not in keys:
            raise InputError(f"{folder}: {first} is missing, but search.first_profile names it")
        order = [first, *(key for key in order if key != first)]
    found = Profiles({key: _read_file(keys[key], layers) for key in order}, str(folder))
    _tell_negative(found)
    return found


def _keys(folder: Path) -> dict[ProfileKey, Path]:
    """Return the profile files of a folder by what they are of."""
    keys = dict[ProfileKey, Path]()
    for path in sorted(folder.iterdir()):
        match = _FILE.match(path.name)
        if match is None or "0" in (match[2], match[3]):
            if path.suffix == ".json":
                raise InputError(
                    f"{path}: name not understood, expected {_example()} with numbers from 1"
                )
            continue
        key = ProfileKey(match[1].upper(), int(match[2]), int(match[3]))
        if key in keys:
            raise InputError(
                f"{path}: {keys[key].name} beside it is of the same device, degree and batch;"
                " keep one of them"
            )
        keys[key] = path
    return keys


def _tell_negative(profiles: Profiles) -> None:
    """Warn of profiles whose whole run is shorter than its layers, as if they were timed apart."""
    short = [
        key for key in profiles if profiles[key].sync_ms < -ROUNDING * sum(profiles[key].layer_ms)
    ]
    if short:
        worst = min(short, key=lambda key: profiles[key].sync_ms)
        entry = profiles[worst]
        log.warning(
            "%s: in %d of %d profiles forward_backward_time_ms is less than the layers add up to"
            " (%s: %.3f of %.3f ms); the time outside layers counts as 0 there",
            profiles.origin, len(short), len(profiles.entries), worst, entry.forward_backward_ms,
            sum(entry.layer_ms),
        )  # fmt: skip


def _example() -> str:
    return "DeviceType.A100_tp1_bs1.json"


def _read_file(path: Path, layers: int) -> LayerProfile:
    try:
        content = msgspec.json.decode(path.read_bytes(), type=ProfileFile)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from error
    time, memory = content.execution_time, content.execution_memory
    for field, values in (
        ("execution_time.layer_compute_total_ms", time.layer_compute_total_ms),
        ("execution_memory.layer_memory_total_mb", memory.layer_memory_total_mb),
        (
            "model.parameters.parameters_per_layer_bytes",
            content.model.parameters.parameters_per_layer_bytes,
        ),
    ):
        if len(values) != layers:
            raise InputError(
                f"{path}: {field} has {len(values)} entries, expected {layers} (model.layers)"
            )
        if min(values) < 0:
            raise InputError(f"{path}: {field} has {min(values)}, expected no negative value")
    if not any(memory.layer_memory_total_mb):
        raise InputError(
            f"{path}: execution_memory.layer_memory_total_mb is all 0, expected what each layer"
            " takes"
        )
    if not any(time.layer_compute_total_ms):
        raise InputError(f"{path}: execution_time.layer_compute_total_ms is all 0, expected times")
    for field in ("forward_backward_time_ms", "optimizer_time_ms", "batch_generator_time_ms"):
        if getattr(time, field) < 0:
            raise InputError(
                f"{path}: execution_time.{field} is {getattr(time, field)}, expected 0 or more"
            )
    return LayerProfile(
        layer_ms=tuple(time.layer_compute_total_ms),
        memory_mb=tuple(memory.layer_memory_total_mb),
        parameters_bytes=tuple(content.model.parameters.parameters_per_layer_bytes),
        forward_backward_ms=time.forward_backward_time_ms,
        optimizer_ms=time.optimizer_time_ms,
        batch_generator_ms=time.batch_generator_time_ms,
        layernorm_allreduce_ms=time.layernorm_grads_all_reduce_time_ms,
        embedding_allreduce_ms=time.embedding_grads_all_reduce_time_ms,
    )


def write_profiles(profiles: Profiles, folder: Path, *, model_name: str) -> list[Path]:
    """Write one upstream-format JSON file per profile and return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for key, entry in profiles.entries.items():
        content = ProfileFile(
            model=_ModelFacts(
                parameters=_Parameters(
                    parameters_per_layer_bytes=list(entry.parameters_bytes),
                    total_parameters_bytes=sum(entry.parameters_bytes),
                ),
                model_name=model_name,
                num_layers=profiles.layers,
            ),
            execution_time=_ExecutionTime(
                total_time_ms=total_ms(entry),
                forward_backward_time_ms=entry.forward_backward_ms,
                batch_generator_time_ms=entry.batch_generator_ms,
                layernorm_grads_all_reduce_time_ms=entry.layernorm_allreduce_ms,
                embedding_grads_all_reduce_time_ms=entry.embedding_allreduce_ms,
                optimizer_time_ms=entry.optimizer_ms,
                layer_compute_total_ms=list(entry.layer_ms),
            ),
            execution_memory=_ExecutionMemory(
                layer_memory_total_mb=list(entry.memory_mb), total_memory=sum(entry.memory_mb)
            ),
        )
        path = folder / str(key)
        write(path, msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
        paths.append(path)
    return paths


def total_ms(entry: LayerProfile) -> float:
    """Return the whole iteration of one micro-batch as upstream totals it."""
    return (
        entry.forward_backward_ms
        + entry.optimizer_ms
        + entry.batch_generator_ms
        + entry.layernorm_allreduce_ms
        + entry.embedding_allreduce_ms
    )
