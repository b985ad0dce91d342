"""Launch files of a plan: the experiment, a torchrun script per node, and a Slurm job."""

from pathlib import Path

from common.case import to_toml
from puzzle.inputs.experiment import Experiment
from puzzle.plan.plans import Plan

PORT = 29500


def write_launch_files(experiment: Experiment, plan: Plan, plan_file: Path) -> tuple[Path, ...]:
    """Write, beside the plan, what starts it on GPUs; return the files.

    torchrun numbers the ranks node by node, so that a switch's groups of k D T consecutive ranks
    stay inside a node where they fit.
    """
    toml = plan_file.with_suffix(".toml")
    toml.write_text(to_toml(experiment))
    per_node = min(plan.world, experiment.machines.devices_per_node)
    nodes = -(-plan.world // per_node)
    command = (
        f"-m puzzle run {toml.name} --plan {plan_file.name} --backend nccl"
        " --out ${PUZZLE_OUT:-results}"
    )
    node, slurm = plan_file.with_suffix(".node.sh"), plan_file.with_suffix(".slurm.sh")
    node.write_text(_node_script(nodes, per_node, command))
    slurm.write_text(_slurm_script(experiment.name, nodes, per_node, command))
    for path in (node, slurm):
        path.chmod(0o755)
    return toml, node, slurm


def _node_script(nodes: int, per_node: int, command: str) -> str:
    return f"""#!/bin/sh
# Run this on each of {nodes} nodes, {per_node} GPUs each, from this folder, with HEAD=<first node>.
set -eu
exec torchrun --nnodes={nodes} --nproc-per-node={per_node} --rdzv-id=puzzle --rdzv-backend=c10d \\
    --rdzv-endpoint="${{HEAD:-localhost}}:{PORT}" \\
    {command}
"""


def _slurm_script(name: str, nodes: int, per_node: int, command: str) -> str:
    return f"""#!/bin/bash
#SBATCH --job-name=puzzle-{name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node={per_node}
#SBATCH --exclusive
# Submit from this folder: sbatch <this file>. Add your partition and account above, and what makes
# python with this package available on the nodes here.
set -eu
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun torchrun --nnodes={nodes} --nproc-per-node={per_node} --rdzv-id="$SLURM_JOB_ID" \\
    --rdzv-backend=c10d --rdzv-endpoint="$head:{PORT}" \\
    {command}
"""
