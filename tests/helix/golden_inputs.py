"""The artifact's clusters, placements and figures, as the tests take them."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from helix.inputs.cluster import Cluster
from helix.inputs.generate import CLUSTERS
from helix.inputs.model import Model, known_models
from helix.inputs.profile import Profiles, shipped_profiles
from helix.plan.placement import UNUSED
from helix.plan.throughput import Throughput, throughput

GOLDEN: dict[str, Any] = json.loads(
    Path(__file__).parents[1].joinpath("golden/helix/golden.json").read_text()
)
SHIPPED: dict[str, dict[str, Any]] = {p["id"]: p for p in GOLDEN["shipped_placements"]}
_CLUSTERS = {"single": "single24", "geo": "geo24", "het": "het42", "quality10": "quality10"}
_MODELS = {"llama30b": "llama1_30b", "llama70b": "llama2_70b"}


@cache
def situation(shipped: str) -> tuple[Cluster, Model, Profiles, Throughput]:
    """Return what a shipped placement was made for: `single.llama30b.ilp.a100` and the like."""
    where, model_name, _, *part = shipped.split("(")[0].split(".")
    cluster = CLUSTERS[_CLUSTERS[where]]()
    if part:
        cluster = cluster.of_kind(part[0].upper())
    model = known_models()[_MODELS[model_name]]
    profiles = shipped_profiles(_MODELS[model_name])
    return cluster, model, profiles, throughput(model, profiles, cluster.kind_counts())


def shipped_intervals(shipped: str) -> tuple[tuple[int, int], ...]:
    """Return the half-open runs of layers by node index."""
    runs = SHIPPED[shipped]["placement"].values()
    return tuple((run[0], run[1]) if run else UNUSED for run in runs)
