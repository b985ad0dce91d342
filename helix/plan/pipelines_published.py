"""The hand-made pipelines of the paper, and the KV capacities they were given."""

import tomllib
from collections.abc import Sequence
from functools import cache
from importlib import resources

import msgspec

from common.errors import InputError
from helix.inputs.cluster import Cluster
from helix.plan.pipelines import Pipeline


class Handmade(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One pipeline of `helix/data/separate.toml`, on machines of a shipped cluster by index."""

    solution: str
    part: str
    cluster: str
    machines: tuple[int, ...]
    intervals: tuple[tuple[int, int], ...]
    counted_as: dict[str, int] = {}
    profile_kv: bool = False

    def pipeline(self, cluster: Cluster, capacities: dict[str, int]) -> Pipeline:
        """Return the pipeline with a calibration's capacities, or the profile's (None)."""
        own = [cluster.nodes[index].kind for index in self.machines]
        kinds = [kind for kind, count in self.counted_as.items() for _ in range(count)] or own
        return Pipeline(
            name=self.part,
            machines=self.machines,
            kinds=tuple(kinds),
            intervals=self.intervals,
            kv_entries=None if self.profile_kv else self._capacities(kinds, capacities),
        )

    def _capacities(self, kinds: Sequence[str], capacities: dict[str, int]) -> tuple[int, ...]:
        held = zip(kinds, self.intervals, strict=True)
        keys = [f"{kind} {end - start}" for kind, (start, end) in held]
        missing = [key for key in keys if key not in capacities]
        if missing:
            kind, layers = missing[0].split()
            raise InputError(
                f"{self.solution}: this calibration knows no KV capacity of {kind} with "
                f"{layers} layers"
            )
        return tuple(capacities[key] for key in keys)


class HandmadeFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The pipelines, and calibrations: tokens times layers by kind and number of layers held."""

    calibrations: dict[str, dict[str, int]]
    extends: dict[str, str]
    pipelines: tuple[Handmade, ...]


@cache
def handmade() -> HandmadeFile:
    """Return the shipped file of hand-made pipelines."""
    text = resources.files("helix").joinpath("data/separate.toml").read_text()
    return msgspec.convert(tomllib.loads(text), HandmadeFile)


def published_pipelines(
    solution: str, cluster: Cluster, calibration: str = ""
) -> tuple[Pipeline, ...]:
    """Return the pipelines of a solution such as `single.llama70b.separate` on its cluster.

    `calibration` names whose KV capacities are taken; published is that of the solution's own
    cluster. The A100's of `single24` is 14 times too large, `geo24` has the same pipelines right.
    """
    file = handmade()
    names = (solution, file.extends.get(solution))
    found = [one for one in file.pipelines if one.solution in names]
    if not found:
        known = ", ".join(dict.fromkeys(one.solution for one in file.pipelines))
        raise InputError(f"published pipelines: {solution!r} is none of {known}")
    calibration = calibration or found[0].cluster
    if calibration not in file.calibrations:
        raise InputError(f"calibration: {calibration!r} is none of {', '.join(file.calibrations)}")
    return tuple(one.pipeline(cluster, file.calibrations[calibration]) for one in found)
