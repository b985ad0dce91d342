"""The deployment recipes: they parse, and every command in them is one that the packages take."""

import importlib
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

from common.verbs import TABLE, app_of

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
TRAINING = ("metis", "puzzle", "vocab_parallel")
STAND_IN = {"helix": "serve-tiny", "beta": "serve"}  # for the user's own file
if not DOCKER.is_dir():
    pytest.skip("an image has no recipes", allow_module_level=True)
yaml = pytest.importorskip("yaml", reason="reads the recipes (extra dev)")

SLURM = sorted((DOCKER / "slurm").glob("*.sbatch"))
YAML = [*sorted(DOCKER.glob("compose*.yaml")), *sorted((DOCKER / "kuberay").glob("*.yaml"))]
PROSE = [DOCKER / "README.md"]
WORDS = r"""((?:[ ]+(?:"[^"]*"|'[^']*'|[^\s'"|&;()`#])+)*)"""
VERBS = "|".join(TABLE["verbs"])


class Command(NamedTuple):
    """A command as a recipe has it, its variables replaced."""

    file: str
    program: str
    words: tuple[str, ...]


def shell_texts(path: Path) -> Iterator[str]:
    """Yield what a shell or an engine would run by the recipe."""
    if path in YAML:
        for document in yaml.safe_load_all(path.read_text()):
            yield from started(document)
    else:
        yield path.read_text()


def started(part: Any) -> Iterator[str]:
    """Yield the command of every container below the part, and of a Ray job."""
    if isinstance(part, dict):
        words = [*as_list(part.get("entrypoint")), *as_list(part.get("command"))]
        words += as_list(part.get("args"))
        image = re.search(r"quintet-(\w+)", str(part.get("image", "")))
        if words and "image" in part and words[0] in ("run", "plan"):
            words = ["-m", image[1] if image else "", *words]
        if words and isinstance(words[0], str):
            yield " ".join(words)
        for value in part.values():
            yield from started(value)
    elif isinstance(part, list):
        for value in part:
            yield from started(value)


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def plain(text: str) -> str:
    """Replace variables by their defaults, by a number, or by the experiment."""
    text = re.sub(r"[ ]*\\\n\s*", " ", text.replace("$$", "$"))
    text = re.sub(r' "\$(\{@:\d\}|@)"', "", text)
    text = re.sub(r'"\$(1|experiment)"|"\$0"(?= --out)', "my.toml", text)
    text = re.sub(r'-m "\$(0|package|PACKAGE)"', "-m PACKAGE", text)
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
    return re.sub(r"\$\{?\w+\}?", "1", text)


def found(pattern: str) -> list[Command]:
    """Return what the pattern's first group names, with the words that the second one holds."""
    return [
        Command(str(path.relative_to(ROOT)), match[1], tuple(shlex.split(match[2])))
        for path in (*SLURM, *YAML, *PROSE)
        for text in shell_texts(path)
        for match in re.finditer(pattern, plain(text))
    ]


def packages_commands() -> list[Command]:
    rows = found(rf"-m (\w+)((?: (?:{VERBS})){WORDS})")
    rows += found(rf"quintet-(\w+):<revision>((?: (?:{VERBS})){WORDS})")
    named = [row._replace(program=row.program.replace("vocab_parallel", "vocab")) for row in rows]
    return [
        row._replace(program=package.replace("vocab_parallel", "vocab"))
        for row in named
        for package in (TRAINING if row.program == "PACKAGE" else [row.program])
    ]


def test_every_recipe_has_a_command():
    files = {row.file for row in packages_commands()}
    all_of_them = {str(path.relative_to(ROOT)) for path in (*SLURM, *YAML, *PROSE)}
    assert all_of_them - files == {"docker/compose.gpu.yaml"}  # devices and limits alone
    ran = {row.program for row in packages_commands() if "run" in row.words}
    assert ran == {"helix", "beta", "metis", "puzzle", "vocab"}


@pytest.mark.parametrize("row", packages_commands(), ids=lambda row: f"{row.file}-{row.program}")
def test_a_package_takes_the_command(row: Command):
    package = row.program.replace("vocab", "vocab_parallel")
    module = importlib.import_module(package)
    verb, *words = row.words
    app = typer.main.get_command(app_of(importlib.import_module(f"{package}.artifact").ARTIFACT))
    command: Any = app.commands[verb]  # pyright: ignore[reportAttributeAccessIssue]
    given = command.make_context(verb, words).params
    if given.get("experiment"):
        known = given["experiment"] in module.experiments()
        name = given["experiment"] if known else STAND_IN.get(package, "tiny-cpu-2")
        assert known or given["experiment"].endswith("my.toml")
        module.load(name, *(given.get("set") or ()))  # every field that --set names is one


def test_ray_takes_its_commands():
    scripts = pytest.importorskip("ray.scripts.scripts")
    rows = found(rf"\b(ray) start{WORDS}")
    assert {Path(row.file).name for row in rows} == {"compose.yaml", "helix.sbatch"}
    for row in rows:
        scripts.start.make_context("start", list(row.words))


def test_torchrun_takes_its_commands():
    run = pytest.importorskip("torch.distributed.run")
    rows = found(rf"\b(torchrun)(?: quintet-\w+:<revision>)?(?= --){WORDS}")
    assert {Path(row.file).name for row in rows} >= {"train.sbatch", "train.yaml", "README.md"}
    for row in rows:
        asked = run.get_args_parser().parse_args(row.words)
        assert asked.module
        assert asked.training_script in ("PACKAGE", *TRAINING)


@pytest.mark.parametrize("path", SLURM, ids=lambda path: path.name)
def test_a_job_is_valid_bash_and_asks_slurm_before_its_first_command(path: Path):
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = path.read_text().splitlines()
    first = next(n for n, line in enumerate(lines) if line and not line.startswith("#"))
    asked = [n for n, line in enumerate(lines) if line.startswith("#SBATCH --")]
    assert asked
    assert max(asked) < first


@pytest.mark.parametrize("path", [p for p in YAML if p.parent.name == "kuberay"], ids=str)
def test_what_kubernetes_mounts_is_a_volume_and_images_have_a_tag_to_put_in(path: Path):
    def pods(part: Any) -> Iterator[dict[str, Any]]:
        if isinstance(part, dict):
            if "containers" in part:
                yield part
            for value in part.values():
                yield from pods(value)

        elif isinstance(part, list):
            for value in part:
                yield from pods(value)

    found = [pod for document in yaml.safe_load_all(path.read_text()) for pod in pods(document)]
    assert found
    for pod in found:
        (container,) = pod["containers"]
        assert re.fullmatch(r"quintet-\w+:REVISION", container["image"])
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        shm = next(volume for volume in pod["volumes"] if volume["name"] == "shm")
        assert shm["emptyDir"]["medium"] == "Memory"
        assert pod["securityContext"]["runAsUser"]


def test_compose_publishes_the_port_that_is_listened_on():
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    published = {name: one["ports"] for name, one in services.items() if "ports" in one}
    assert set(published) == {"helix", "ray-head", "beta"}
    for name, (port,) in published.items():
        said = " ".join(services[name]["command"])
        assert f"serve.port={port.split(':')[1]}" in said
        assert "serve.host=0.0.0.0" in said
    gpu = yaml.safe_load((DOCKER / "compose.gpu.yaml").read_text())["services"]
    assert set(gpu) <= set(services)
