"""Run the command line: `python -m metis VERB`."""

from common.verbs import main
from metis.artifact import ARTIFACT

main(ARTIFACT)
