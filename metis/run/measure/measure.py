"""This machine's profile in upstream Metis' schema: one JSON per tensor degree and batch size.

The layers are those that `metis.run` trains, so plans made from the files fit what is run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from common.errors import InputError, RankError
from common.ranks import Backend, check_machine, run_ranks
from metis.inputs.model import Model
from metis.inputs.profile import LayerProfile, ProfileKey, Profiles, write_profiles
from metis.run.results import device_name
from metis.run.settings import Dtype, check_degree
from metis.run.weights import parameters

if TYPE_CHECKING:
    from metis.run.measure.layers import Measured

_BYTES = {"float32": 4, "float64": 8, "bfloat16": 2}
JOURNAL = "measurements.jsonl"
"""Beside the profiles: how each was measured, with every sample of a whole step."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the journal."""

    file: str
    backend: str
    device: str
    dtype: str
    warmups: int
    repeats: int
    blocks_measured: int
    """Fewer than the model's blocks: the rest did not fit and repeats their median."""
    step_ms: list[float]


def measure(
    model: Model,
    out_dir: Path,
    *,
    device_type: str,
    tps: Sequence[int] = (1,),
    batch_sizes: Sequence[int] = (1, 2, 4),
    backend: Backend = "gloo",
    dtype: Dtype = "float32",
    blocks: int | None = None,
    devices: int | None = None,
    warmups: int = 2,
    repeats: int = 5,
    timeout_s: float = 600.0,
    on_file: Callable[[Path], None] = lambda path: None,
) -> list[Path]:
    """Measure a model's layers on this machine's devices and return the files written.

    Every tensor degree runs on that many real ranks. Batch sizes are taken in ascending order
    until the next does not fit into memory. Each file is written as soon as it is measured.
    `blocks` limits how many of the model's blocks are built (the rest repeats their median). On
    CPUs a device is an equal share of the cores, one of `devices`, or else of the largest degree.
    """
    _check(model, device_type, tps, batch_sizes, backend)
    from metis.run.measure.layers import Setting, measure_rank

    paths: list[Path] = []
    for tp in sorted(tps):
        setting = Setting(
            model, tp, sorted(batch_sizes), dtype, backend == "nccl", blocks, warmups, repeats
        )

        def keep(found: Measured, tp: int = tp) -> None:
            key = ProfileKey(device_type.upper(), tp, found.bs)
            path = _write(model, key, found, out_dir, _BYTES[dtype])
            entry = Entry(
                file=path.name,
                backend=backend,
                device=device_name(backend),
                dtype=dtype,
                warmups=warmups,
                repeats=repeats,
                blocks_measured=found.blocks,
                step_ms=found.step_ms,
            )
            _note(out_dir / JOURNAL, entry)
            paths.append(path)
            on_file(path)

        try:
            run_ranks(
                measure_rank,
                tp,
                setting,
                backend=backend,
                timeout_s=timeout_s,
                cores_for=devices or max(tps),
                on_report=keep,
            )
        except RankError as error:
            if not error.out_of_memory:
                raise
    if not paths:
        raise InputError(
            f"one block of the model does not fit into this machine's memory at batch size"
            f" {min(batch_sizes)}; give smaller widths or a larger tensor degree"
        )
    return paths


def _check(
    model: Model, device_type: str, tps: Sequence[int], batch_sizes: Sequence[int], backend: Backend
) -> None:
    """Raise `InputError` for what cannot be measured here."""
    if not re.fullmatch(r"\w+", device_type):
        raise InputError(
            f"device type {device_type!r}: expected letters, digits and _, it is part of the names"
        )
    for name, values in (("tensor degrees", tps), ("batch sizes", batch_sizes)):
        if not values or min(values) < 1:
            raise InputError(f"{name} {list(values)}: expected at least one, each 1 or more")
    for tp in tps:
        check_degree(model, tp, f"tensor degree {tp}")
        check_machine(tp, backend, what=f"tensor degree {tp}")


def _write(model: Model, key: ProfileKey, found: Measured, folder: Path, width: int) -> Path:
    """Write one profile; parameters are those of whole layers, as upstream's are."""
    entry = LayerProfile(
        layer_ms=tuple(found.layer_ms),
        memory_mb=tuple(found.memory_mb),
        parameters_bytes=tuple(
            float(width * parameters(model, layer)) for layer in range(model.layers)
        ),
        forward_backward_ms=sum(found.layer_ms) + found.between_ms,
        optimizer_ms=found.optimizer_ms,
        batch_generator_ms=found.batch_generator_ms,
    )
    return write_profiles(Profiles({key: entry}, str(folder)), folder, model_name=model.name)[0]


def _note(journal: Path, entry: Entry) -> None:
    with journal.open("ab") as file:
        file.write(msgspec.json.encode(entry) + b"\n")
