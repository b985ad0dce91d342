"""What only a GPU can show, by the command lines of all packages: equal to a CPU, and as predicted.

`make gpu` runs it on the GPUs that there are. `pytest tests/gpu -m gpu --device cpu` rehearses the
same checks with gloo on CPU ranks, so that the checks themselves are tried where no GPU is.
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from common.page import Section, Table, render, write_section
from common.provenance import collect, save

ROOT = Path(__file__).parents[2]
ROWS = pytest.StashKey[list["Row"]]()
COLUMNS = ("check", "what", "measured", "CPU or predicted", "state")


class Row(NamedTuple):
    """What a check found: a figure beside what the CPU has or the model predicts."""

    check: str
    what: str
    measured: float | str
    beside: float | str
    state: str


class Metrics(dict[str, float]):
    """The metrics of an answer by their names."""


Told = Callable[..., None]
Ask = Callable[..., Metrics]


def named(item: pytest.Item) -> str:
    """Return a check's name with its package."""
    return f"{item.path.stem.removeprefix('test_')}: {item.name.removeprefix('test_')}"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", choices=("cuda", "cpu"), default="cuda")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []


def pytest_collection_finish(session: pytest.Session) -> None:
    """Say what would be done, and leave, where the GPUs that are asked for are not there."""
    here = [item for item in session.items if Path(__file__).parent in item.path.parents]
    if here and session.config.getoption("--device") == "cuda" and not torch.cuda.is_available():
        names = "\n".join(f"  {named(item)}" for item in here)
        mend = "no CUDA device is visible here (see: python -m vocab_parallel doctor)"
        print(f"\n{mend}; on a machine with one this would check\n{names}")
        pytest.exit("no GPU", returncode=2)


@pytest.fixture(scope="session")
def cuda(request: pytest.FixtureRequest) -> bool:
    return request.config.getoption("--device") == "cuda"


@pytest.fixture(scope="session")
def devices(cuda: bool) -> int:
    """How many ranks may run beside each other."""
    return torch.cuda.device_count() if cuda else 4


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """Return what asks a package's command line and returns the metrics; each in its time limit."""

    def run(package: str, *words: str, limit_s: float = 180) -> Metrics:
        command = [sys.executable, "-m", package, *words, "--out", str(tmp_path / "out"), "--json"]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=limit_s,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr[-3000:]}"
        answer: dict[str, Any] = json.loads(done.stdout)
        return Metrics({m["name"]: m["value"] for m in answer.get("metrics", ())})

    return run


@pytest.fixture
def told(request: pytest.FixtureRequest) -> Told:
    """Return what notes a figure for the report: `told(what, measured, beside)`."""

    def tell(what: str, measured: float, beside: float | str = "") -> None:
        numbers = isinstance(beside, int | float) and beside and math.isfinite(measured)
        state = f"{100 * (measured / beside - 1):+.3g} %" if numbers else "measured"
        row = Row(named(request.node), what, measured, beside, state)
        request.config.stash[ROWS].append(row)

    return tell


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: pytest.TestReport = yield
    if report.when == "call" or report.outcome != "passed":
        said = str(report.longrepr[-1]) if isinstance(report.longrepr, tuple) else ""
        state = {"passed": "ok", "failed": "FAILED"}.get(report.outcome, said or report.outcome)
        row = Row(named(item), f"took {report.duration:.1f} s", "", "", state)
        item.config.stash[ROWS].append(row)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    rows = session.config.stash.get(ROWS, [])
    out = Path(os.environ.get("RESULTS") or ROOT / "results")
    if not rows:
        return
    facts = collect()
    device = session.config.getoption("--device")
    names = ", ".join(facts["hardware"]["gpus"]) if device == "cuda" else "CPU ranks (a rehearsal)"
    known = {"device": names, "driver": facts["driver"], "torch": torch.__version__}
    path = out / "gpu" / "gpu.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    old = json.loads(path.read_text())["rows"] if path.exists() else []
    checks = {row.check for row in rows}
    every = [row for row in old if row["check"] not in checks] + [row._asdict() for row in rows]
    path.write_text(json.dumps(known | {"rows": every}, indent=1) + "\n")
    failed = sum(row["state"] == "FAILED" for row in every)
    table = Table(
        title="Checks on GPUs", columns=COLUMNS, rows=tuple(tuple(row.values()) for row in every)
    )
    section = Section(
        artifact="gpu",
        title=f"GPU checks: {names}",
        intro=f"torch {torch.__version__}, driver {facts['driver']}. Each check asks a package's"
        " command line on the device, and the same on a CPU or of the cost model.",
        number=f"{len({row['check'] for row in every})} checks, {failed} failed.",
        tables=(table,),
        provenance=(save(out),),
    )
    write_section(out, section)
    print(f"\nreport: {render(out)}; to send: {path}")
