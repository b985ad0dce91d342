"""Run the command line: `python -m puzzle VERB`."""

from common.verbs import main
from puzzle.artifact import ARTIFACT

main(ARTIFACT)
