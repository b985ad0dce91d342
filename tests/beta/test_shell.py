"""The shell around Beta: its library, failures that stay alone, the product without its paper."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import beta
from beta.plan.plans import Plan, check
from common.case import to_toml
from common.errors import InputError
from common.files import read_plan

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(1800)


def command(
    *words: str, cwd: Path, root: Path = ROOT, **more: str
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(root), "COLUMNS": "120"} | more
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def test_the_library_says_what_the_command_line_says(tmp_path: Path):
    done = command("-m", "beta", "simulate", "small", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    experiment = beta.load("small")
    plan = beta.plan(experiment)
    file = tmp_path / "results/beta/plans/small.best.json"
    assert plan == read_plan(file, Plan, check)
    assert json.loads(msgspec.json.encode(plan)) == told["plan"]
    outcome = beta.simulate(experiment, plan)
    assert outcome.summary == told["summary"]
    assert json.loads(msgspec.json.encode(outcome.metrics)) == told["metrics"]
    other = beta.plan(experiment, method="mp-greedy-4")
    assert (other.method, {g.pp for g in other.periods[0].groups}) == ("mp-greedy-4", {4})
    with pytest.raises(InputError, match="no method 'worst'"):
        beta.plan(experiment, method="worst")


def test_the_library_writes_nothing_without_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    experiment = beta.load("small", "traffic.duration_s=60")
    beta.simulate(experiment, beta.plan(experiment))
    beta.simulate(experiment)
    assert list(tmp_path.iterdir()) == []
    beta.plan(experiment, out=tmp_path / "here")
    assert [path.name for path in (tmp_path / "here/beta/plans").iterdir()] == ["small.best.json"]


def test_a_simulation_is_drawn(tmp_path: Path):
    pytest.importorskip("matplotlib")
    experiment = beta.load("small", "traffic.duration_s=60")
    outcome = beta.simulate(experiment)
    drawing = outcome.figure()
    over_time, by_latency, by_model = drawing.axes
    asked, good = (patch.get_data() for patch in over_time.patches)
    width = asked.edges[1] - asked.edges[0]
    workload, result, _ = outcome.value
    assert asked.values.sum() * width == pytest.approx(len(workload))
    assert good.values.sum() * width == pytest.approx(result.good.sum())
    (line,) = by_latency.get_lines()
    assert len(line.get_xdata()) == result.good.sum()
    heights = [bar.get_height() for bar in by_model.patches]
    shares = [
        100 * result.good[workload.model == m].mean() for m in range(len(outcome.plan.models))
    ]
    assert heights == pytest.approx(shares)


def test_points_that_cannot_be_served_leave_the_others_and_the_report_whole(tmp_path: Path):
    """A machine on which Ray cannot start: its session folder would lie below a file."""
    (tmp_path / "file").write_text("no folder")
    words = ("-m", "beta", "quick", "--set", "figures=fidelity,serve-delay")
    done = command(*words, cwd=tmp_path, RAY_TMPDIR=str(tmp_path / "file/ray"))
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    lines = (tmp_path / "results/beta/quick.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    statuses = {(r["experiment"], r["status"]) for r in records}
    assert statuses == {("fidelity", "ok"), ("serve-delay", "failed")}
    assert len(records) == 20 + 10
    assert all("Ray did not start" in r["error"] for r in records if r["status"] == "failed")
    claims = json.loads((tmp_path / "results/claims.json").read_text())
    assert {claim["id"]: claim["verdict"] for claim in claims} == {
        "fidelity-points": "pass",
        "fidelity-testbed": "pass",
    }
    assert "repeat: python -m beta quick --again --only serve-delay" in done.stdout
    assert "Ray did not start" in (tmp_path / "results/report.html").read_text()


@pytest.mark.slow
def test_the_product_works_without_its_paper(tmp_path: Path):
    for package in ("beta", "common"):
        shutil.copytree(ROOT / package, tmp_path / package)
    shutil.rmtree(tmp_path / "beta/paper")
    # An editable install would find the paper elsewhere.
    start = (
        "import sys; sys.meta_path[:] = [f for f in sys.meta_path if '__editable__' not in"
        " str(getattr(f, '__module__', ''))]; from beta.artifact import main; main()"
    )
    (tmp_path / "work").mkdir()
    experiment = beta.load("small", "traffic.duration_s=30")
    (tmp_path / "work/my.toml").write_text(to_toml(experiment))

    def product(*words: str) -> str:
        done = command("-c", start, *words, cwd=tmp_path / "work", root=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    listed = [row["name"] for row in json.loads(product("list", "--json"))]
    assert listed == ["small", "my-llama", "serve", "soak", "serve-delay"]
    assert 'name = "small"' in product("inputs", "small")
    assert "training requests in time" in product("plan", "my.toml")
    assert "requests in time" in product("simulate", "my.toml")
    imported = command(
        *("-c", "import beta.run.answer, sys; print(*(m for m in sys.modules if 'beta.pa' in m))"),
        cwd=tmp_path / "work",
        root=tmp_path,
    )
    assert (imported.returncode, imported.stdout.strip()) == (0, ""), imported.stderr


def test_the_product_never_imports_its_paper():
    for path in (ROOT / "beta").rglob("*.py"):
        room = path.relative_to(ROOT / "beta").parts[0]
        if room not in ("paper", "artifact.py"):
            assert "beta.paper" not in path.read_text(), path


def test_importing_the_declaration_and_the_library_loads_nothing_heavy():
    code = (
        "import beta, beta.artifact, sys; print([m for m in ('torch', 'numba', 'scipy', 'ray',"
        " 'highspy', 'matplotlib') if m in sys.modules])"
    )
    done = command("-c", code, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr
