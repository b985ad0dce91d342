"""State where results were made: code, image, versions and hardware, once per process."""

import functools
import hashlib
import importlib
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from common.errors import InputError
from common.record import append_line, read_lines

_PACKAGES = (
    *("numpy", "numba", "torch", "msgspec", "highspy", "gurobipy", "ray", "deepspeed"),
    *("megatron-core", "apex"),  # the index's own "apex", another project, is at 0.9.10dev
)


def collect(extra: Mapping[str, Any] = {}) -> dict[str, Any]:
    """Return the facts of this process, with `extra` (solver, CUDA, NCCL ...) beside them."""
    return {**_facts(), **extra}


def save(out: Path, extra: Mapping[str, Any] = {}) -> str:
    """Add the facts once to `<out>/provenance.jsonl` and return their id.

    The id is `<hardware>-<all facts>`, two hashes: it tells one machine's records from another's.
    """
    facts = collect(extra)
    name = f"{_hash(facts['hardware'])}-{_hash(facts)}"
    if name not in saved(out):
        append_line(Path(out, "provenance.jsonl"), msgspec.json.encode({"id": name, **facts}))
    return name


def saved(out: Path) -> dict[str, dict[str, Any]]:
    """Return all facts saved under `out` by their ids."""
    lines = read_lines(Path(out, "provenance.jsonl"), dict[str, Any])
    return {facts["id"]: facts for facts in lines}


def load(out: Path, name: str) -> dict[str, Any]:
    """Return the facts saved under that id."""
    if name in (facts := saved(out)):
        return facts[name]
    raise InputError(f"{out}/provenance.jsonl: no line has the id '{name}'; run the case again")


def _hash(facts: object) -> str:
    return hashlib.sha256(msgspec.json.encode(facts, order="sorted")).hexdigest()[:8]


@functools.cache
def _facts() -> dict[str, Any]:
    info, (gpus, driver) = Path("/proc/cpuinfo"), _gpus()
    model = re.search(r"model name\s*: (.*)", info.read_text() if info.exists() else "")
    cpu = model[1] if model else platform.processor() or platform.machine()
    ram = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    installed = {found.name: found.version for found in metadata.distributions()}
    return {
        "revision": os.environ.get("QUINTET_REVISION") or _revision(),
        "image": os.environ.get("QUINTET_IMAGE"),
        "base": os.environ.get("QUINTET_BASE"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "versions": {name: installed.get(name) for name in _PACKAGES},
        "driver": driver,
        "hardware": {"cpu": cpu, "cores": os.cpu_count(), "ram_GiB": ram, "gpus": gpus},
    }


def _revision() -> str | None:
    """Return the commit of our own checkout, `-dirty` where tracked files differ from it."""
    root = Path(__file__).parents[1]
    describe = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    command = ["git", f"--git-dir={root / '.git'}", f"--work-tree={root}", *describe]
    with suppress(FileNotFoundError):  # no git
        return subprocess.run(command, capture_output=True, text=True).stdout.strip() or None


def _gpus() -> tuple[list[str], str | None]:
    with suppress(ImportError):
        nvml: Any = importlib.import_module("pynvml")
        with suppress(nvml.NVMLError):  # no driver
            nvml.nvmlInit()
            handles = map(nvml.nvmlDeviceGetHandleByIndex, range(nvml.nvmlDeviceGetCount()))
            return list(map(nvml.nvmlDeviceGetName, handles)), nvml.nvmlSystemGetDriverVersion()
    return [], None
