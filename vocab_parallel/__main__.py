"""Run the command line: `python -m vocab_parallel VERB`."""

from common.verbs import main
from vocab_parallel.artifact import ARTIFACT

main(ARTIFACT)
