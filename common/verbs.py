"""Build the command line of a package from `verbs.toml` and its declaration."""

import inspect
import tomllib
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from common import acts
from common.artifact import Artifact
from common.errors import InputError
from common.log import guard, setup

TABLE = tomllib.loads(Path(__file__).with_name("verbs.toml").read_text(encoding="utf-8"))
NEEDS = {
    "list": "experiments", "inputs": "experiments", "report": "plan", "doctor": "plan",
    "quick": "suites", "full": "suites",
}  # fmt: skip
"""The hook without which a package has not that verb, where it is not the verb's own."""


def main(artifact: Artifact) -> None:
    """Run a package's command line."""
    app_of(artifact)(prog_name=artifact.name)


def app_of(artifact: Artifact) -> typer.Typer:
    """Return a package's command line."""
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=artifact.sentence)
    app.callback()(_versioned(artifact))
    for verb, row in TABLE["verbs"].items():
        if NEEDS.get(verb, verb) in artifact.hooks:
            app.command(verb, help=row["help"])(_function(artifact, verb, row["takes"].split()))
    return app


def _versioned(artifact: Artifact) -> Callable[..., None]:
    def say(asked: bool) -> None:
        if asked:
            print(f"{artifact.name} of quintet {metadata.version('quintet')}")
            raise typer.Exit

    option = typer.Option("--version", callback=say, is_eager=True, help="Print the version.")

    def callback(version: Annotated[bool, option] = False) -> None:
        pass

    return callback


def _function(artifact: Artifact, verb: str, words: Sequence[str]) -> Callable[..., None]:
    """Return a verb's function with the signature from which typer makes arguments and options."""

    def function(**given: Any) -> None:
        verbose = given.pop("verbose")
        with guard(verbose, artifact.name):
            if given.get("seed", 0) < 0:
                raise InputError(f"--seed is {given['seed']}, expected 0 or more")
            if "out" in given and not given["json"] and verb != "list":
                setup(artifact.name, None if verb == "report" else given["out"], verbose)
            acts.ACTS[verb](artifact, verb, **given)

    own = {o.name: {"kind": "str", "help": o.help} for o in artifact.options if verb in o.verbs}
    rows = TABLE["options"] | own
    parameters = [
        _option(artifact, verb, word, rows[word]) if word in rows else _argument(artifact, word)
        for word in dict.fromkeys((*words, *own))
    ]
    function.__dict__["__signature__"] = inspect.Signature(parameters)
    function.__annotations__ = {p.name: p.annotation for p in parameters}
    return function


def _argument(artifact: Artifact, word: str) -> inspect.Parameter:
    def complete(incomplete: str) -> list[str]:
        return [name for name in artifact.named() if name.startswith(incomplete)]

    completes = None if word == "suite" else complete
    argument = typer.Argument(**TABLE["arguments"][word], autocompletion=completes)
    if word == "experiment":
        return _parameter(word, Annotated[str, argument], inspect.Parameter.empty)
    return _parameter(word, Annotated[str | None, argument], None)


def _option(artifact: Artifact, verb: str, name: str, row: dict[str, Any]) -> inspect.Parameter:
    hidden = name == "set" and verb in ("quick", "full") and "how" not in artifact.hooks
    flags = row.get("flags", [f"--{name.replace('_', '-')}"])
    option = typer.Option(*flags, help=row["help"], metavar=row.get("metavar"), hidden=hidden)
    kinds: dict[str, Any] = {"bool": bool, "path": Path, "int": int, "str": str, "list": list[str]}
    kind, default = kinds[row["kind"]], row.get("default", False if row["kind"] == "bool" else None)
    if default is None:
        return _parameter(name, Annotated[kind | None, option], None)
    return _parameter(name, Annotated[kind, option], kind(default))


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)
