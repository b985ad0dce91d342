"""What Metis declares: `common` makes command line, suites, report and library of it."""

from common import verbs
from common.artifact import Artifact, Option

ARTIFACT = Artifact(
    name="metis",
    sentence="Metis: the best parallel training plan for a cluster of heterogeneous GPUs.",
    method="search.method",
    hooks={
        "experiment": "metis.inputs.experiment:Experiment",
        "plan_type": "metis.plan.plans:Plan",
        "experiments": "metis.inputs.examples:examples",
        "load": "metis.inputs.experiment:checked",
        "plan": "metis.plan.answer:plan",
        "check": "metis.plan.plans:check",
        "question": "metis.plan.answer:question",
        "simulate": "metis.simulate.answer:simulate",
        "figure": "metis.simulate.answer:figure",
        "run": "metis.run.answer:run",
        "profile": "metis.run.profile:profile",
        "hardware": "metis.inputs.examples:hardware",
        "axes": "metis.inputs.experiment:axes",
        "paper_experiments": "metis.paper.experiments:named",
        "suites": "metis.paper.experiments:suites",
        "section": "metis.paper.section:section",
        "derived": "metis.paper.derived:reductions",
    },
    options=(
        Option(
            "export", ("plan",), "Also write the plan for another trainer: torchtitan, deepspeed."
        ),
        Option(
            "replan",
            ("plan",),
            "Plan anew for a job that runs by this plan: nodes are gone (cluster.lost) or came.",
        ),
    ),
)


def main() -> None:
    """Run the command line."""
    verbs.main(ARTIFACT)
