"""Gather the pages of the docs site in build/docs: what is written by hand, and what code says.

READMEs, claims and notebooks keep their places, so that links among them hold; files that they link
to come along. Beside them each package gets pages made from itself: every field of its TOML, its
command line, its library.
"""

import importlib
import inspect
import re
import shutil

from typer.testing import CliRunner

from common.teach import taught
from common.verbs import app_of
from docs.claims import PACKAGES, ROOT

OUT = ROOT / "build" / "docs"
VERBS = ("list", "inputs", "profile", "plan", "simulate", "run", "report", "quick", "doctor")
TERMINAL = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
NAMES = ("load", "experiments", "plan", "simulate", "profile", "run")
LINK = re.compile(r"\]\(([^)#\s]+?)(?:#[^)]*)?\)|<img[^>]*src=\"([^\"]+)\"")


def main() -> None:
    """Write all pages."""
    shutil.rmtree(OUT, ignore_errors=True)
    pages = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "DATA.md", "SECURITY.md"]
    pages += ["docker/README.md"]
    pages += [f"{package}/{name}" for package in PACKAGES for name in ("README.md", "CLAIMS.md")]
    pages += [str(p.relative_to(ROOT)) for p in ROOT.glob("*/docs/*.md")]
    for page in pages:
        _bring(page)
    for package in PACKAGES:
        _bring(f"{package}/tutorial.ipynb")
        (OUT / package / "fields.md").write_text(_fields(package), encoding="utf-8")
        (OUT / package / "cli.md").write_text(_command_line(package), encoding="utf-8")
        (OUT / package / "library.md").write_text(_library(package), encoding="utf-8")


def _bring(name: str) -> None:
    """Copy a page, and every file that it links to and that is no page."""
    source, target = ROOT / name, OUT / name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
    if source.suffix != ".md":
        return
    for found in LINK.finditer(source.read_text(encoding="utf-8")):
        path = (source.parent / (found[1] or found[2])).resolve()
        inside = path.is_file() and ROOT in path.parents
        if inside and path.suffix not in (".md", ".ipynb"):
            there = OUT / path.relative_to(ROOT)
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, there)


def _fields(package: str) -> str:
    """Return every field of an experiment with its meaning, unit, choices and default."""
    module = importlib.import_module(package)
    name, experiment = next(iter(module.experiments().items()))
    text = taught(experiment, everything=True)
    about = f"`python -m {package} inputs {name} --all` prints this: all fields, with the values"
    return f"# Fields of {package}\n\n{about} of `{name}`.\n\n```toml\n{text}```\n"


def _command_line(package: str) -> str:
    """Return the help of each verb as a terminal shows it."""
    app = app_of(importlib.import_module(f"{package}.artifact").ARTIFACT)
    parts = [f"# Command line of {package}\n"]
    for verb in VERBS:
        shown = CliRunner().invoke(app, [verb, "--help"], env=TERMINAL, prog_name=package)
        parts.append(f"## {verb}\n\n```text\n{shown.stdout.strip()}\n```\n")
    return "\n".join(parts)


def _library(package: str) -> str:
    """Return the library's functions with their signatures and docstrings."""
    module = importlib.import_module(package)
    parts = [f"# Library of {package}\n\n```python\nimport {package}\n```\n"]
    for name in NAMES:
        found = getattr(module, name)  # a room of the package, which can be called, or a function
        function = type(found).__call__ if inspect.ismodule(found) else found
        told = inspect.getdoc(function) or ""
        parts.append(f"## {package}.{name}\n\n`{name}{inspect.signature(function)}`\n\n{told}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    main()
