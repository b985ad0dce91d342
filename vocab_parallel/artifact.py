"""What the package declares; the shell in `common` makes command line, suites, library of it."""

from common import verbs
from common.artifact import Artifact

ARTIFACT = Artifact(
    name="vocab_parallel",
    sentence="Vocabulary Parallelism: pipelines balanced for large vocabularies.",
    method="pipeline.method",
    plans_alike=True,
    hooks={
        "experiment": "vocab_parallel.inputs.experiment:Experiment",
        "plan_type": "vocab_parallel.plan.plans:Plan",
        "experiments": "vocab_parallel.inputs.examples:examples",
        "load": "vocab_parallel.inputs.load:loaded",
        "plan": "vocab_parallel.plan.answer:plan",
        "check": "vocab_parallel.plan.plans:check",
        "question": "vocab_parallel.plan.answer:question",
        "simulate": "vocab_parallel.simulate.answer:simulate",
        "figure": "vocab_parallel.simulate.answer:figure",
        "run": "vocab_parallel.run.answer:run",
        "profile": "vocab_parallel.run.profile:profile",
        "hardware": "vocab_parallel.inputs.examples:hardware",
        "paper_experiments": "vocab_parallel.paper.experiments:named",
        "suites": "vocab_parallel.paper.experiments:suites",
        "section": "vocab_parallel.paper.section:section",
    },
)


def main() -> None:
    """Run the command line."""
    verbs.main(ARTIFACT)
