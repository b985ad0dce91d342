"""Run the command line: `python -m helix VERB`."""

from common.verbs import main
from helix.artifact import ARTIFACT

main(ARTIFACT)
