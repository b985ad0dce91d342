"""A plan trained under torchrun on two unequal nodes equals ranks started here."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from common.files import write_plan
from metis.inputs.model import Model
from metis.run import RunResult, Training, launch
from tests.metis.toy_plans import make_plan

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
from pathlib import Path
from common.files import read_plan
from metis.plan.plans import Plan, check
from metis.run import Training, launch

if __name__ == "__main__":
    steps = int(sys.argv[2])
    launch(
        read_plan(Path(sys.argv[1]), Plan, check),
        steps=steps,
        out=Path(sys.argv[3]),
        training=Training(dtype="float64", timeout_s=60),
        on_step=lambda step, loss: print(step, loss, flush=True),
    )
"""


def replicas(ranks):
    """A plan of one stage of `ranks` replicas."""
    model = Model(
        layers=3, hidden_size=8, sequence_length=4, vocabulary=7, heads=2, global_batch=ranks
    )
    return make_plan([(ranks, 1, 3, (1,) * ranks)], batches=1, model=model)


@pytest.mark.slow
def test_torchrun_on_two_unequal_nodes_equals_ranks_started_here(tmp_path):
    plan = replicas(3)
    write_plan(plan, tmp_path / "plan.json")
    (tmp_path / "script.py").write_text(SCRIPT)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    agents = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--nnodes=2",
                f"--node-rank={node}",
                f"--nproc-per-node={ranks}",
                "--rdzv-backend=static",
                f"--rdzv-endpoint=127.0.0.1:{port}",
                str(tmp_path / "script.py"),
                str(tmp_path / "plan.json"),
                "2",
                str(tmp_path / f"node{node}"),
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for node, ranks in enumerate((1, 2))
    ]
    assert [agent.wait(60) for agent in agents] == [0, 0]
    result = msgspec.json.decode((tmp_path / "node0/run.json").read_bytes(), type=RunResult)
    here = launch(plan, steps=2, training=Training(dtype="float64", timeout_s=60))
    assert result.losses == pytest.approx(here.losses, rel=1e-12)
    assert not (tmp_path / "node1").exists()
