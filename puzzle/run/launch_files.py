"""Launch files of a plan: the experiment, a torchrun script per node, and a Slurm job."""

from pathlib import Path

from common.case import to_toml
from common.files import write
from puzzle.inputs.experiment import Experiment
from puzzle.plan.plans import Plan

PORT = 29500


def write_launch_files(experiment: Experiment, plan: Plan, plan_file: Path) -> tuple[Path, ...]:
    """Write, beside the plan, what starts it on GPUs; return the files.

    torchrun numbers the ranks node by node, so that a switch's groups of k D T consecutive ranks
    stay inside a node where they fit. Where the ranks do not fill the nodes, the last has the rest.
    """
    toml = plan_file.with_suffix(".toml")
    write(toml, to_toml(experiment))
    devices = min(plan.world, experiment.machines.devices_per_node)
    nodes, rest = -(-plan.world // devices), plan.world % devices
    command = (
        f"-m puzzle run {toml.name} --plan {plan_file.name} --backend nccl"
        " --out ${PUZZLE_OUT:-results}"
    )
    node, slurm = plan_file.with_suffix(".node.sh"), plan_file.with_suffix(".slurm.sh")
    write(node, _node_script(nodes, devices, rest, command))
    write(slurm, _slurm_script(experiment.name, nodes, devices, rest, command))
    for path in (node, slurm):
        path.chmod(0o755)
    return toml, node, slurm


def _node_script(nodes: int, devices: int, rest: int, command: str) -> str:
    last = f", the last one {rest} with NPROC={rest} set" if rest else ""
    which = "NODE=<0 to " + str(nodes - 1) + "> and HEAD=<address of node 0>"
    return f"""#!/bin/sh
# Run this on each of {nodes} nodes, {devices} GPUs each{last}, from this folder, with
# {which}.
set -eu
exec torchrun --nnodes={nodes} --node-rank="${{NODE:-0}}" \\
    --nproc-per-node="${{NPROC:-{devices}}}" \\
    --master-addr="${{HEAD:-localhost}}" --master-port="${{PORT:-{PORT}}}" \\
    {command}
"""


def _slurm_script(name: str, nodes: int, devices: int, rest: int, command: str) -> str:
    here = f"""[ "$SLURM_NODEID" != {nodes - 1} ] || export NPROC={rest}; """ if rest else ""
    return f"""#!/bin/bash
#SBATCH --job-name=puzzle-{name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node={devices}
#SBATCH --exclusive
# Submit from this folder: sbatch <this file>. Add your partition and account above, and what makes
# python with this package available on the nodes here.
set -eu
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export HEAD
srun bash -c '{here}exec torchrun --nnodes={nodes} --node-rank="$SLURM_NODEID" \\
    --nproc-per-node="${{NPROC:-{devices}}}" \\
    --master-addr="$HEAD" --master-port="${{PORT:-{PORT}}}" \\
    {command}'
"""
