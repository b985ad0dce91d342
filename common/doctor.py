"""Look for what a package needs on this machine: the verb `doctor`."""

import importlib.metadata
import re
import resource
import shutil
import socket
import sys
from contextlib import suppress
from pathlib import Path

import msgspec
from rich.table import Table

from common.provenance import collect

GIB = 2**30
SHM_GIB, DISK_GIB, PORTS = 1, 5, (8000, 8265, 29500)


class Check(msgspec.Struct, frozen=True):
    """One thing looked at; what is not ok says how to mend it."""

    name: str
    found: str
    ok: bool = True
    mend: str = ""


def checks(artifact: str) -> list[Check]:
    """Return what was found of Python, the package's libraries, GPUs, limits, ports and disk."""
    facts, python = collect(), sys.version_info
    found = [Check("Python", facts["python"], python >= (3, 11), "install Python 3.11 to 3.13")]
    extra = artifact.replace("_", "-")
    have = {found.name: found.version for found in importlib.metadata.distributions()}
    for line in importlib.metadata.requires("quintet") or ():
        named = re.match(r"([\w.-]+).*extra == [\"']([\w-]+)", line)
        if named and named[2] == extra:
            mend = f"pip install 'quintet[{extra}]'"
            found.append(Check(named[1], have.get(named[1]) or "missing", named[1] in have, mend))
    gpus = ", ".join(facts["hardware"]["gpus"])
    said = f"{gpus}, driver {facts['driver']}; `make gpu` tries all that needs them"
    found.append(Check("GPUs", said if gpus else "none: CPU only"))
    with suppress(OSError):
        shm = shutil.disk_usage("/dev/shm").total / GIB
        mend = "give the container --ipc=host or --shm-size=8g"
        found.append(Check("/dev/shm", f"{shm:.1f} GiB", shm >= SHM_GIB, mend))
    locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    said = "unlimited" if locked == resource.RLIM_INFINITY else f"{locked / GIB:.3f} GiB"
    mend = "NCCL over InfiniBand needs it: ulimit -l unlimited, or --ulimit memlock=-1"
    found.append(Check("memlock", said, said == "unlimited" or not gpus, mend))
    found += map(_port, PORTS)
    free = shutil.disk_usage(Path.cwd()).free / GIB
    mend = "free some, or name another folder with --out"
    return [*found, Check("free disk", f"{free:.1f} GiB", free >= DISK_GIB, mend)]


def _port(port: int) -> Check:
    with socket.socket() as probe:
        free = probe.connect_ex(("127.0.0.1", port)) != 0
    return Check(f"port {port}", "free" if free else "in use: services here need another one")


def table(found: list[Check]) -> Table:
    """Return the checks as a table for the terminal."""
    shown = Table("", "found", "", box=None)
    for check in found:
        shown.add_row(check.name, check.found, "" if check.ok else check.mend)
    return shown
