"""Run the command line: `python -m puzzle VERB`."""

from puzzle.cli import main

main()
