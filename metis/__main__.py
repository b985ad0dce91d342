"""Run the command line: `python -m metis VERB`."""

from metis.cli import main

main()
