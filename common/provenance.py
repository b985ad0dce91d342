"""State where results were made: code, image, versions and hardware, once per process.

An id is `<hardware>-<everything>`, so that records of one machine are told from another's by the
id alone. Nothing heavy is imported to learn a version.
"""

import functools
import hashlib
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from common.errors import InputError
from common.record import append_line

# NVIDIA's apex and the index's package of that name are told apart by the version only.
_PACKAGES = (
    *("numpy", "numba", "torch", "msgspec", "highspy", "gurobipy", "ray"),
    *("deepspeed", "megatron-core", "apex"),
)


def collect(extra: Mapping[str, Any] = {}) -> dict[str, Any]:
    """Return the facts of this process, with `extra` (solver, CUDA, NCCL ...) beside them."""
    return {**_facts(), **extra}


def save(out: Path, extra: Mapping[str, Any] = {}) -> str:
    """Return the facts' id, having added them once to `<out>/provenance.jsonl`."""
    facts = collect(extra)
    name = f"{_digest(facts['hardware'])}-{_digest(facts)}"
    if name not in _lines(Path(out)):
        append_line(Path(out) / "provenance.jsonl", msgspec.json.encode({"id": name, **facts}))
    return name


def load(out: Path, name: str) -> dict[str, Any]:
    """Return the facts saved under that id."""
    if name not in (lines := _lines(Path(out))):
        raise InputError(f"{out}/provenance.jsonl: no line with id '{name}'; run the case again")
    return lines[name]


def _lines(out: Path) -> dict[str, dict[str, Any]]:
    path = out / "provenance.jsonl"
    lines = path.read_bytes().splitlines() if path.exists() else []
    decoded = dict[str, dict[str, Any]]()
    for line in lines:
        try:
            facts = msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue  # broken by a crash: the next save writes it again
        decoded[facts.get("id", "")] = facts
    return decoded


def _digest(facts: object) -> str:
    return hashlib.sha256(msgspec.json.encode(facts, order="sorted")).hexdigest()[:8]


@functools.cache
def _facts() -> dict[str, Any]:
    gpus, driver = _gpus()
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "revision": os.environ.get("QUINTET_REVISION") or _revision(),
        "image": os.environ.get("QUINTET_IMAGE"),
        "base": os.environ.get("QUINTET_BASE"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "hardware": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "ram_GiB": round(ram / 2**30),
            "gpus": gpus,
        },
        "driver": driver,
    }


def _revision() -> str | None:
    """Return the commit, with `-dirty` where tracked files differ; None outside a checkout."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None  # installed elsewhere, perhaps inside somebody else's checkout
    command = [
        "git",
        "-C",
        str(root),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def _gpus() -> tuple[list[str], str | None]:
    """Return the GPUs' names and the driver's version, nothing where there is no NVIDIA driver."""
    try:
        import pynvml as nvml
    except ImportError:
        return [], None
    try:
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        return [nvml.nvmlDeviceGetName(h) for h in handles], nvml.nvmlSystemGetDriverVersion()
    except nvml.NVMLError:
        return [], None
