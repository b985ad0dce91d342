"""Compile the kernels before anything is timed (once per machine; afterwards they are cached)."""

import logging
import time
from functools import cache

from metis.inputs.cluster import Cluster, NodeGroup
from metis.inputs.experiment import Method
from metis.inputs.model import Model
from metis.inputs.synth import synthesize
from metis.plan.anytime import Search
from metis.plan.optimal import optimal
from metis.plan.problem import Problem
from metis.plan.search import search
from metis.plan.switches import of_mode
from metis.plan.wider import wider

log = logging.getLogger("metis")

NOTICEABLE_S = 5.0
"""A longer warm-up has compiled, not loaded."""


@cache
def warm_up(method: Method, *, strict: bool) -> None:
    """Load the kernels of a method, compiling those that are not cached (some ten seconds)."""
    started = time.perf_counter()
    if method == "optimal" and strict:
        Search(_smallest()).run()
        wider(_smallest())
    elif method == "wider":
        wider(_smallest())
    elif method != "uniform":
        search(_smallest(), "metis")
        if method in ("optimal", "walks"):
            optimal(_smallest())
            wider(_smallest())
    seconds = time.perf_counter() - started
    if seconds > NOTICEABLE_S:
        log.info("compiled the search kernels in %.0f s (they are cached from now on)", seconds)


def _smallest() -> Problem:
    return Problem(
        model=Model(layers=3, global_batch=2),
        cluster=Cluster(nodes=(NodeGroup(device="A100", devices=2),)),
        profiles=synthesize(3, max_tp=2, max_batch_size=2, time_scale={"A100": 1.0}),
        node_types=("A100",),
        switches=of_mode("strict"),
        max_tp=2,
        max_batch_size=2,
        group_variance=1.0,
        max_permute_len=128,
    )
