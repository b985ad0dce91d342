"""What Helix declares; `common` makes command line, suites, report and library of it."""

from common import verbs
from common.artifact import Artifact, Option

ARTIFACT = Artifact(
    name="helix",
    sentence="Helix: one large model served over heterogeneous GPUs and networks.",
    method="search.method",
    hooks={
        "experiment": "helix.inputs.experiment:Experiment",
        "plan_type": "helix.plan.plans:Plan",
        "experiments": "helix.inputs.examples:examples",
        "load": "helix.inputs.experiment:checked",
        "axes": "helix.inputs.experiment:axes",
        "prepare": "helix.run.prepare:prepare",
        "plan": "helix.plan.answer:plan",
        "check": "helix.plan.plans:check",
        "question": "helix.plan.answer:question",
        "stem": "helix.plan.answer:stem",
        "simulate": "helix.simulate.answer:simulate",
        "figure": "helix.simulate.answer:figure",
        "points": "helix.simulate.sweep:points",
        "points_table": "helix.simulate.sweep:points_table",
        "run": "helix.run.answer:run",
        "profile": "helix.run.profile:profile",
        "paper_experiments": "helix.paper.experiments:named",
        "suites": "helix.paper.experiments:suites",
        "section": "helix.paper.section:section",
    },
    options=(
        Option(
            "objective",
            ("plan",),
            "What method search makes largest: simulated, latency-flow or flow.",
            path="search.objective",
        ),
        Option(
            "export",
            ("plan",),
            "Also write the plan for another engine: vllm (its plain pipelines, and a router).",
        ),
        Option(
            "ray", ("simulate",), "Spread a sweep over this Ray cluster, such as auto or HOST:PORT."
        ),
    ),
    shown_by=("verb", "method", "objective"),
)


def main() -> None:
    """Run the command line."""
    verbs.main(ARTIFACT)
