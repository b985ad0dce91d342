"""Golden cases of the original as problems of ours."""

import json
from pathlib import Path
from typing import Any

from metis.inputs.cluster import Cluster, NodeGroup
from metis.inputs.model import Model
from metis.inputs.profile import ProfileKey
from metis.inputs.synth import synthesize
from metis.plan.problem import Policy, Problem
from metis.plan.search import RankedPlan
from metis.plan.switches import Mode, of_mode

GOLDEN = Path(__file__).parents[1] / "golden" / "metis"
POLICY: dict[str, Policy] = {"metis": "metis", "strat": "stratified"}


def golden() -> dict[str, Any]:
    return json.loads((GOLDEN / "golden.json").read_text())


def units() -> dict[str, Any]:
    return json.loads((GOLDEN / "units.json").read_text())


def case_problem(case: dict[str, Any], mode: Mode = "compat") -> Problem:
    """Return the problem of a golden search case."""
    nodes = tuple(
        NodeGroup(
            device=device,
            devices=count,
            memory_gb=case["memory_gb"][device],
            intra_bandwidth=case["intra_bandwidth"][device],
            inter_bandwidth=10,
        )
        for device, count in case["hosts"]
    )
    layers, limit = case["profile_gen"]
    return Problem(
        model=Model(layers=case["num_layers"], global_batch=case["gbs"]),
        cluster=Cluster(nodes=nodes),
        profiles=synthesize(
            layers,
            max_tp=limit,
            max_batch_size=limit,
            time_scale=case["time_scale"],
            memory="flat",
            first=ProfileKey(*case["first_profile"]),
        ),
        node_types=tuple(case["node_sequence"]),
        switches=of_mode(mode),
        max_tp=case["max_profiled_tp_degree"],
        max_batch_size=case["max_profiled_batch_size"],
        group_variance=case["min_group_scale_variance"],
        max_permute_len=case["max_permute_len"],
    )


def table1_case(run: dict[str, Any]) -> dict[str, Any]:
    """Return a Table 1 reference run in the form of a search case."""
    nodes = run["per_type"] // 4
    return {
        "num_layers": run["num_layers"],
        "hosts": [["A100", 4]] * nodes + [["V100", 4]] * nodes,
        "gbs": 128,
        "node_sequence": run["node_sequence"],
        "memory_gb": {"A100": 80, "V100": 16},
        "intra_bandwidth": {"A100": 46, "V100": 50},
        "min_group_scale_variance": 1,
        "max_permute_len": 128,
        "max_profiled_tp_degree": 128,
        "max_profiled_batch_size": 128,
        "first_profile": run["first_profile"],
        "profile_gen": [run["num_layers"], 128],
        "time_scale": {"A100": 1.0, "V100": 3.5},
    }


def nodes8() -> dict[str, Any]:
    """Return the case that chain traces name but golden.json leaves out (8 + 8 GPUs)."""
    run = {
        "num_layers": 8,
        "per_type": 8,
        "node_sequence": ["A100", "V100"],
        "first_profile": ["A100", 1, 1],
    }
    return table1_case(run) | {"hosts": [["A100", 8], ["V100", 8]], "gbs": 64}


def as_golden(plan: RankedPlan | None) -> dict[str, Any] | None:
    """Return a plan in the form of the golden file, cost left out."""
    if plan is None:
        return None
    return {
        "node_sequence": list(plan.layout.node_sequence),
        "device_groups": list(plan.layout.groups),
        "strategies": [list(strategy) for strategy in plan.survivor.strategies],
        "batches": plan.batches,
        "layer_partition": list(plan.survivor.split),
        "num_repartition": plan.survivor.attempts,
        "num_stage_field": 1 if plan.layout.phantom else len(plan.layout.groups),
    }
