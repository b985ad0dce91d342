"""Run the command line: `python -m beta VERB`."""

from beta.cli import main

if __name__ == "__main__":  # worker processes import this module too
    main()
