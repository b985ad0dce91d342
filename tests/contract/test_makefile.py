"""The Makefile: the same targets for every artifact, in both runtimes, read by `make --dry-run`."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE_OF = {name: name for name in ("helix", "metis", "beta", "puzzle")} | {
    "vocab": "vocab_parallel"
}
VERBS = ("quick", "full", "report")
if not (ROOT / "Makefile").exists() or shutil.which("make") is None:
    pytest.skip("needs make and the repository", allow_module_level=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with the Makefile and the five packages as it looks for them."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for package in PACKAGE_OF.values():
        shutil.copytree(ROOT / "docker" / package, tmp_path / "docker" / package)
        (tmp_path / package).mkdir()
        (tmp_path / package / "artifact.py").touch()
    for file in ROOT.glob("requirements*.txt"):
        shutil.copy(file, tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def make(tree: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    settings = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG")}
    return subprocess.run(
        ["make", *arguments, *(f"{key}={value}" for key, value in variables.items())],
        cwd=tree,
        env=settings,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def commands(tree: Path, target: str, **variables: str) -> str:
    """What make would run, one command a line."""
    done = make(tree, "--dry-run", target, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout.replace("\\\n", " ")


def test_make_alone_prints_help_that_names_every_variable(tree: Path):
    text = make(tree).stdout
    settable = re.findall(r"^(\w+) \?=", (tree / "Makefile").read_text(), re.MULTILINE)
    assert {"DOCKER", "GPUS", "GPU_FLAGS", "BASE_IMAGE", "RESULTS", "ARGS"} <= set(settable)
    assert not [name for name in (*settable, "RUNTIME") if f"  {name} " not in text]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("artifact", PACKAGE_OF)
def test_locally_a_verb_runs_the_package_from_the_venv(tree: Path, artifact: str, verb: str):
    lines = commands(tree, f"{artifact}-{verb}", RUNTIME="local", RESULTS="out", ARGS="--again")
    last = lines.strip().splitlines()[-1]
    assert last == f'.venv/bin/python -m {PACKAGE_OF[artifact]} {verb} --out "out" --again'


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("artifact", PACKAGE_OF)
def test_in_a_container_a_verb_runs_as_the_caller_after_building(
    tree: Path, artifact: str, verb: str
):
    build, *_, last = (
        commands(tree, f"{artifact}-{verb}", RUNTIME="docker", RESULTS="out").strip().splitlines()
    )
    assert build.startswith("docker build ")
    assert f"--file docker/{PACKAGE_OF[artifact]}/Dockerfile ." in build
    assert "--user $(id -u):$(id -g)" in last
    assert f'--volume "{tree}/out:/results"' in last
    assert last.split("quintet-")[1].split()[1:] == [verb, "--out", "/results"]


@pytest.mark.parametrize("runtime", ["docker", "local"])
@pytest.mark.parametrize("artifact", PACKAGE_OF)
def test_an_artifacts_tests_are_its_own_and_the_shared_ones(
    tree: Path, artifact: str, runtime: str
):
    last = commands(tree, f"{artifact}-test", RUNTIME=runtime).strip().splitlines()[-1]
    assert last.endswith(f"tests/common tests/contract tests/{PACKAGE_OF[artifact]}")
    assert " -m pytest " in last


def test_all_images_together_try_what_they_share_once(tree: Path):
    lines = [x for x in commands(tree, "test", RUNTIME="docker").splitlines() if " -m pytest " in x]
    assert len(lines) == len(PACKAGE_OF)
    assert sum("tests/common " in line for line in lines) == 1
    for line, package in zip(lines, PACKAGE_OF.values(), strict=True):
        assert line.rstrip().endswith(f"tests/contract tests/{package}")


@pytest.mark.parametrize("target", ["images", "quick", "full", "report"])
def test_an_aggregate_takes_the_artifacts_that_are_there(tree: Path, target: str):
    (tree / "helix" / "artifact.py").unlink()
    lines = commands(tree, target, RUNTIME="docker")
    for artifact, package in PACKAGE_OF.items():
        assert (f"docker/{package}/Dockerfile" in lines) == (artifact != "helix")


def test_images_are_built_side_by_side_where_jobs_are_given(tree: Path):
    """The engine here ends a build only when all five have begun, or fails after ten seconds."""
    engine = tree / "engine"
    engine.write_text(
        '#!/bin/sh\n[ "$1" = build ] || exit 0\ntouch "$(mktemp begun.XXXXXX)"\n'
        "for i in $(seq 100); do\n"
        f"  [ $(ls begun.* | wc -l) -lt {len(PACKAGE_OF)} ] || exit 0\n  sleep 0.1\ndone\nexit 1\n"
    )
    engine.chmod(0o755)
    done = make(tree, "-j", "images", DOCKER=str(engine), RUNTIME="docker")
    assert done.returncode == 0, done.stderr


def test_an_image_is_told_its_version_time_and_source(tree: Path):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    plain = commands(tree, "metis-image", RUNTIME="docker")
    assert f"--build-arg VERSION={version} --build-arg CREATED=" in plain
    assert re.search(r"CREATED=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d) ", plain)
    assert "image.source" not in plain
    told = commands(tree, "metis-image", RUNTIME="docker", SOURCE_URL="https://example.org/x")
    assert "--label org.opencontainers.image.source=https://example.org/x" in told


def test_a_suite_that_fails_stops_no_other_and_is_told_in_the_end(tree: Path):
    python = tree / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "ran $2"\ntest "$2" != helix\n')
    python.chmod(0o755)
    for name in ("torch", *PACKAGE_OF):
        (tree / ".venv" / f".has-{name}").touch()
    done = make(tree, "full", RUNTIME="local")
    assert re.findall(r"^ran (\w+)", done.stdout, re.MULTILINE) == list(PACKAGE_OF.values())
    assert done.returncode == 2


def test_an_artifact_that_is_not_there_is_one_line(tree: Path):
    (tree / "vocab_parallel" / "artifact.py").unlink()
    done = make(tree, "vocab-quick", RUNTIME="local")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "vocab-quick: this artifact is not here yet" in line
    assert "vocab_parallel/artifact.py" in line


@pytest.mark.parametrize(("engine", "runtime"), [("true", "docker"), ("false", "local")])
def test_the_runtime_is_a_container_where_an_engine_answers(tree: Path, engine: str, runtime: str):
    assert f"RUNTIME={runtime}" in commands(tree, "metis-quick", DOCKER=engine)


def test_locally_all_tests_run_together(tree: Path):
    lines = commands(tree, "test", RUNTIME="local")
    words = lines.strip().splitlines()[-1].split()
    assert words == [
        ".venv/bin/python",
        "-m",
        "pytest",
        "--numprocesses",
        "2",
        "--dist",
        "loadfile",
    ]


@pytest.mark.parametrize(
    ("variables", "flag"),
    [
        ({"GPUS": "all"}, "--gpus '\"all\"'"),
        ({"GPUS": "device=0,1"}, "--gpus '\"device=0,1\"'"),
        ({"GPUS": "2"}, "--gpus '\"2\"'"),
        ({"GPUS": "all", "DOCKER": "podman"}, "--device nvidia.com/gpu=all"),
        (
            {"GPUS": "2", "DOCKER": "podman"},
            "--device nvidia.com/gpu=0 --device nvidia.com/gpu=1 --ulimit",
        ),
        (
            {"GPUS": "device=0,3", "DOCKER": "podman"},
            "--device nvidia.com/gpu=0 --device nvidia.com/gpu=3 --ulimit",
        ),
        ({"GPUS": "0", "GPU_FLAGS": "--device /dev/x"}, "--device /dev/x"),
    ],
)
def test_gpus_become_the_flags_of_the_engine(tree: Path, variables: dict[str, str], flag: str):
    assert flag in commands(tree, "metis-quick", RUNTIME="docker", **variables)


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_without_gpus_no_gpu_flag_is_given(tree: Path, engine: str):
    lines = commands(tree, "metis-quick", RUNTIME="docker", GPUS="0", DOCKER=engine)
    assert not re.search(r"--gpus|--device|--ulimit", lines)


def test_flags_and_base_reach_the_engine(tree: Path):
    flags = {"BUILD_FLAGS": "--pull", "RUN_FLAGS": "--cpus 2", "BASE_IMAGE": "somewhere/base:1"}
    build, *_, last = commands(tree, "metis-quick", RUNTIME="docker", **flags).splitlines()
    assert "docker build --pull --build-arg BASE_IMAGE=somewhere/base:1 " in build
    assert " --cpus 2 " in last


def test_only_the_dockerfiles_name_the_default_base(tree: Path):
    assert "BASE_IMAGE=" not in commands(tree, "metis-image", RUNTIME="docker")
    assert "nvcr" not in (tree / "Makefile").read_text()


def test_no_recipe_is_longer_than_two_lines(tree: Path):
    joined = (tree / "Makefile").read_text().replace("\\\n", " ")
    recipes = re.findall(r"(?:^\t.*\n)+", joined, re.MULTILINE)
    assert recipes
    assert max(recipe.count("\n") for recipe in recipes) <= 2


def test_every_lock_has_a_rule(tree: Path):
    lines = commands(tree, "lock")
    for file in [*ROOT.glob("requirements*.txt"), *ROOT.glob("docker/*/requirements.txt")]:
        name = str(file.relative_to(ROOT))
        bare = ("requirements-torch.txt", "requirements-triton.txt")  # other files by platform
        assert (f"--output-file {name}" in lines) == (name not in bare)


@pytest.mark.parametrize("results", ["my results", "/tmp/my results"])
def test_a_results_folder_may_have_a_blank(tree: Path, results: str):
    whole = results if results.startswith("/") else f"{tree}/{results}"
    last = commands(tree, "metis-quick", RUNTIME="docker", RESULTS=results).splitlines()[-1]
    assert last.startswith(f'mkdir -p "{whole}" && docker run ')
    assert f' --volume "{whole}:/results" ' in last
    local = commands(tree, "metis-quick", RUNTIME="local", RESULTS=results)
    assert f'-m metis quick --out "{results}"' in local
