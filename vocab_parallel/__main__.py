"""Run the command line: `python -m vocab_parallel VERB`."""

from vocab_parallel.cli import main

main()
