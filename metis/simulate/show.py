"""A plan's predicted times as a table for the terminal."""

from rich.table import Table

from metis.plan.plans import Plan
from metis.simulate.compare import compare


def terms_table(plan: Plan) -> Table:
    """Return closed form and timeline beside each other, term by term."""
    table = Table("term", "closed form ms", "timeline ms", "meaning")
    for term in compare(plan):
        table.add_row(term.name, f"{term.closed_ms:.3f}", f"{term.played_ms:.3f}", term.meaning)
    return table
