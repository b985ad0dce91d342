"""How the layers are placed: the method, its objective and its budget."""

from typing import Literal

import msgspec

from common.errors import InputError

Method = Literal[
    "portfolio", "search", "milp", "position", "petals", "swarm", "separate", "homogeneous",
    "published",
]  # fmt: skip
Split = Literal["least-latency", "max-flow", "balanced", "original"]
Objective = Literal["simulated", "latency-flow", "flow"]


class SearchSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to place the layers."""

    method: Method = "portfolio"
    """Who places: all methods, of which the best by simulation is improved; or one of them: our
    search, an exact MILP, a baseline, the artifact's own placements."""
    objective: Objective = "simulated"
    """portfolio, search: decode throughput as simulated or in closed form, or the paper's maximum
    flow."""
    published: str = ""
    """published: the placement's name in helix/data/placements.json; separate: in separate.toml."""
    calibration: str = ""
    """separate, published: the cluster whose KV capacities are taken; empty: its own."""
    stages: int = 0
    """swarm: how many stages; 0: the most that its rule allows."""
    split: Split = "least-latency"
    """Which of several maximum flows sets the routing weights; original: networkx's, as there;
    portfolio simulates the first three."""
    partial: bool = False
    """Let work enter a machine in the middle of its layers."""
    chains: int = 12
    """search: independent annealing chains."""
    evaluations: int = 250_000
    """search: placements that each chain evaluates; fewer on fewer than 10 machines."""
    simulations: int = 240
    """search, simulated: placements that are simulated; fewer on fewer than 10 machines."""
    time_limit_s: float = 300.0
    """Seconds, then stop with the best so far: a budget finds the same every time, a time not.
    Compiling, once on a machine, is not counted."""
    workers: int = 0
    """Threads; 0: one per core."""
    solver: Literal["highs", "gurobi"] = "highs"
    """milp, position: gurobi needs gurobipy and a licence that is large enough."""
    start: Literal["petals", "swarm", "none"] = "petals"
    """milp: the placement that the solver begins from."""
    keep_links: int = 0
    """milp: links per machine after pruning; 0: all."""
    cap: bool = True
    """milp: cut off what the machines cannot compute; the original's problem has no such rows."""

    def __post_init__(self) -> None:
        """Refuse budgets out of range."""
        for field in ("chains", "evaluations"):
            if getattr(self, field) < 1:
                raise InputError(f"search.{field} is {getattr(self, field)}, expected 1 or more")
        for field in ("stages", "simulations", "workers", "keep_links"):
            if getattr(self, field) < 0:
                raise InputError(f"search.{field} is {getattr(self, field)}, expected 0 or more")
        if not self.time_limit_s > 0:
            raise InputError(f"search.time_limit_s is {self.time_limit_s}, expected above 0")
