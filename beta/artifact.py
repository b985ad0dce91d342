"""What Beta declares; `common` makes command line, suites, report and library of it."""

from common import verbs
from common.artifact import Artifact, Option

ARTIFACT = Artifact(
    name="beta",
    sentence="Beta (AlpaServe): place many models on few devices, sharing them by model"
    " parallelism.",
    method="placement.method",
    hooks={
        "experiment": "beta.inputs.experiment:Experiment",
        "plan_type": "beta.plan.plans:Plan",
        "experiments": "beta.inputs.examples:examples",
        "hardware": "beta.inputs.examples:hardware",
        "axes": "beta.inputs.experiment:axes",
        "prepare": "beta.run.profile:prepare",
        "profile": "beta.run.profile:profile",
        "plan": "beta.plan.answer:plan",
        "check": "beta.plan.plans:check",
        "question": "beta.plan.answer:question",
        "simulate": "beta.simulate.answer:simulate",
        "figure": "beta.simulate.answer:figure",
        "run": "beta.run.answer:run",
        "paper_experiments": "beta.paper.experiments:named",
        "suites": "beta.paper.suites:suites",
        "how": "beta.paper.suites:how",
        "point": "beta.paper.points:point",
        "warm": "beta.paper.points:warm",
        "section": "beta.paper.section:section",
        "derived": "beta.paper.derived:comparisons",
    },
    options=(
        Option(
            "api_key",
            ("run",),
            "Where the key is that clients have to send: env:NAME or file:PATH.",
            path="serve.api_key",
        ),
        Option("ray", ("quick", "full"), "Spread the points over this Ray cluster, such as auto."),
    ),
    shown_by=(),
)


def main() -> None:
    """Run the command line."""
    verbs.main(ARTIFACT)
