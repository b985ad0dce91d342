"""Run the command line: `python -m helix VERB`."""

from helix.cli import main

main()
