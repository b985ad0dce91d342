"""What Puzzle declares; from it `common` makes command line, suites, report and library."""

from common import verbs
from common.artifact import Artifact

ARTIFACT = Artifact(
    name="puzzle",
    sentence="Puzzle: PPO alignment with light-weight context switches.",
    method="method",
    hooks={
        "experiment": "puzzle.inputs.experiment:Experiment",
        "plan_type": "puzzle.plan.plans:Plan",
        "experiments": "puzzle.inputs.examples:examples",
        "hardware": "puzzle.inputs.examples:hardware",
        "plan": "puzzle.plan.answer:plan",
        "check": "puzzle.plan.plans:check",
        "question": "puzzle.plan.answer:question",
        "simulate": "puzzle.simulate.answer:simulate",
        "figure": "puzzle.simulate.answer:figure",
        "run": "puzzle.run.answer:run",
        "profile": "puzzle.run.profile:profile",
        "paper_experiments": "puzzle.paper.experiments:named",
        "suites": "puzzle.paper.suites:suites",
        "section": "puzzle.paper.section:section",
        "listing": "puzzle.paper.listing:listing",
        # The suites' own: the cost model and the paper's runs, and these again on GPUs.
        "fit": "puzzle.paper.fitting:fit",
        "published": "puzzle.paper.publishing:published",
        "repeat": "puzzle.paper.repeating:repeat",
    },
    plans_alike=True,
    origins={"fit": "simulated", "published": "paper", "repeat": "measured"},
)


def main() -> None:
    """Run the command line."""
    verbs.main(ARTIFACT)
