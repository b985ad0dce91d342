"""Two nodes that share no disk: each runs its own launch script in a folder of its own."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from metis.inputs.cluster import NodeGroup
from metis.inputs.experiment import ClusterSource, Experiment, TrainingSettings
from metis.inputs.model import Model
from metis.plan.answer import write_launch
from tests.metis.toy_plans import make_plan

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
MODEL = Model(layers=4, hidden_size=8, sequence_length=4, vocabulary=7, heads=2, global_batch=4)
FIGURES = {"memory_gb": 1.0, "intra_bandwidth": 1.0, "inter_bandwidth": 1.0}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def nodes_apart(folder: Path, **training: object) -> tuple[Path, Path]:
    """Write the launch files of a plan for 1 + 2 devices, and take them to two folders."""
    nodes = (
        NodeGroup(device="CPU", devices=1, host="127.0.0.1", **FIGURES),
        NodeGroup(device="CPU", devices=2, host="other", **FIGURES),
    )
    asked = Experiment(
        name="apart",
        model=MODEL,
        cluster=ClusterSource(nodes=nodes),
        training=TrainingSettings(**{"steps": 3, "timeout_s": 60.0, **training}),
    )
    plan = make_plan(
        [(1, 1, 2, (2,), ("CPU",)), (2, 1, 2, (1, 1), ("CPU",) * 2)],
        batches=2,
        model=MODEL,
        experiment="apart",
    )
    home = write_launch(asked, plan, folder / "launch")
    for name in ("here", "there"):
        shutil.copytree(home, folder / name)
    return folder / "here", folder / "there"


def start(home: Path, number: int, port: int) -> subprocess.Popen[str]:
    """Start a node's script as a user would on that node."""
    (script,) = home.glob(f"node{number}-*.sh")
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "TORCHRUN": str(Path(sys.executable).with_name("torchrun")),
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [str(script), "--backend", "gloo", "--out", "results"],
        cwd=home,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_nodes_without_a_shared_disk_end_and_the_first_keeps_the_results(tmp_path: Path) -> None:
    homes, port = nodes_apart(tmp_path, checkpoint_every=3), free_port()
    started = [start(home, number, port) for number, home in enumerate(homes)]
    said = [process.communicate(timeout=100)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], "\n".join(said)
    here, there = homes
    assert "3 steps on 3 gloo ranks: loss" in said[0]
    (record,) = map(json.loads, (here / "results/metis/own.jsonl").read_text().splitlines())
    assert record["files"].keys() == {"metis/runs/apart/run.json"}
    assert (here / "results/metis/runs/apart/checkpoints/step-3/checkpoint.json").is_file()
    assert {path.name for path in (there / "results/metis").iterdir()} == {
        "log-rank1.jsonl",
        "log-rank2.jsonl",
    }
