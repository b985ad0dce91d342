"""Run the command line: `python -m beta VERB`."""

from beta.artifact import ARTIFACT
from common.verbs import main

main(ARTIFACT)
