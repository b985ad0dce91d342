"""State where results were made: code, image, versions and hardware, once per process."""

import functools
import importlib
import os
import platform
import re
import resource
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from common.case import case_id
from common.record import append_line, read_lines

# The package index's own "apex" is another project, at version 0.9.10dev.
_PACKAGES = "numpy numba torch msgspec highspy gurobipy ray deepspeed megatron-core apex"


def save(out: Path) -> str:
    """Add the facts once to `<out>/provenance.jsonl`; return their id, `<hardware>-<all>`."""
    facts = collect()
    name = f"{case_id(facts['hardware'])[:8]}-{case_id(facts)[:8]}"
    if name not in saved(out):
        append_line(out / "provenance.jsonl", msgspec.json.encode({"id": name, **facts}))
    return name


def saved(out: Path) -> dict[str, dict[str, Any]]:
    """Return all facts saved under `out` by their ids."""
    return {facts["id"]: facts for facts in read_lines(out / "provenance.jsonl", dict[str, Any])}


def is_first_rank() -> bool:
    """Say whether this process is alone or rank 0 of a torchrun launch."""
    return os.environ.get("RANK", "0") == "0"


def peak_rss() -> int:
    """Return the peak resident memory of this process in bytes.

    Linux hands getrusage's figure on from the process that started this one, so its own is read.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@functools.cache
def collect() -> dict[str, Any]:
    """Return the facts of this process."""
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
        "versions": {name: installed.get(name) for name in _PACKAGES.split()},
        "driver": driver,
        "hardware": {"cpu": cpu, "cores": os.cpu_count(), "ram_GiB": ram, "gpus": gpus},
    }


def _revision() -> str | None:
    """Return the commit of our own checkout, `-dirty` where tracked files differ from it."""
    command = "git --git-dir=.git describe --always --dirty --abbrev=40 --exclude=*"
    root = Path(__file__).parents[1]
    with suppress(FileNotFoundError):  # no git
        done = subprocess.run(command.split(), cwd=root, capture_output=True, text=True)
        return done.stdout.strip() or None


def _gpus() -> tuple[list[str], str | None]:
    with suppress(ImportError):
        nvml: Any = importlib.import_module("pynvml")
        with suppress(nvml.NVMLError):  # no driver
            nvml.nvmlInit()
            handles = map(nvml.nvmlDeviceGetHandleByIndex, range(nvml.nvmlDeviceGetCount()))
            return list(map(nvml.nvmlDeviceGetName, handles)), nvml.nvmlSystemGetDriverVersion()
    return [], None
