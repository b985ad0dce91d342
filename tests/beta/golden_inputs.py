"""Golden cases of the original as inputs of ours."""

import json
from pathlib import Path
from typing import Any

from beta.inputs.arrivals import gamma
from beta.inputs.profile import Config, Profile, Record, profiles_of, read_profiles, rows_of
from beta.inputs.workload import Workload, merge

GOLDEN = Path(__file__).parents[1] / "golden" / "beta"
GIB = 2**30


def cases(*kinds: str) -> dict[str, dict[str, Any]]:
    found = json.loads((GOLDEN / "golden.json").read_text())["cases"]
    return {case["id"]: case for case in found if case["kind"] in kinds}


def profiles() -> dict[str, Profile]:
    early = read_profiles(GOLDEN / "profile_early_bert13b.csv")["bert-1.3b"]
    renamed = [row._replace(model="bert-1.3b-early") for row in rows_of({"": early})]
    made_up = {
        Config(1, pp): Record(stage_s={1: (latency,) * pp}, weight_bytes=(2 * GIB / pp,) * pp)
        for pp, latency in ((1, 0.1), (2, 0.051), (4, 0.026))
    }
    return {
        **read_profiles(),
        **profiles_of(renamed, "golden"),
        "test-2GB-100ms": Profile(model="test-2GB-100ms", records=made_up),
    }


def merged_case() -> Workload:
    models = cases("merge")["workload_merge"]["input"]["models"]
    return merge(
        gamma(rate=m["rate"], cv=m["cv"], duration=m["duration"], seed=m["seed"]) for m in models
    )
