"""A problem that no solver here finishes in a minute, with a known solution."""

from helix.plan.milp import start_vector
from helix.plan.milp_matrices import MilpOptions, milp_matrices
from helix.plan.solvers_matrix import Floats, Matrices
from tests.helix.golden_inputs import shipped_intervals, situation

SHIPPED = "single.llama70b.petals"


def hard_problem() -> tuple[Matrices, Floats, float]:
    """Return the paper's MILP of 24 machines, the Petals start and its flow."""
    cluster, model, _, speed = situation(SHIPPED)
    options = MilpOptions()
    problem = milp_matrices(cluster, model, speed, options)
    x = start_vector(problem, cluster, model.layers, shipped_intervals(SHIPPED), options)
    return problem.matrices, x, float(problem.matrices.costs @ x)
