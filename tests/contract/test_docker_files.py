"""The image recipes: pinned base, hashed wheels, no root, no leaks, and all five alike."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("helix", "metis", "beta", "puzzle", "vocab_parallel")
if not (ROOT / "docker").is_dir():
    pytest.skip("an image has no recipes of images", allow_module_level=True)
each_package = pytest.mark.parametrize("package", PACKAGES)


def recipe(package: str) -> str:
    """The Dockerfile without comments, one instruction a line."""
    text = (ROOT / "docker" / package / "Dockerfile").read_text()
    return re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")


def instructions(package: str, name: str) -> list[str]:
    return re.findall(rf"^{name} +(.*)$", recipe(package), re.MULTILINE)


@each_package
def test_the_base_is_pinned_by_tag_and_digest(package: str):
    base = instructions(package, "ARG")[0]
    assert re.fullmatch(r"BASE_IMAGE=[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", base)
    first, *others = instructions(package, "FROM")
    assert first == "${BASE_IMAGE} AS wheels"
    assert {line.split()[0] for line in others} == {"wheels"}


def test_all_images_have_the_same_base():
    assert len({instructions(package, "ARG")[0] for package in PACKAGES}) == 1


@each_package
def test_the_image_is_not_root(package: str):
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", instructions(package, "USER")[-1])


@each_package
def test_wheels_are_hashed_and_nothing_is_resolved(package: str):
    installs = [line for line in instructions(package, "RUN") if " pip " in line]
    assert len(installs) == 2
    assert all(" --no-deps " in line for line in installs)
    assert " --require-hashes " in installs[0]
    assert all(line.startswith('PIP_CONSTRAINT="" ') for line in installs)


@each_package
def test_wheels_are_made_before_all_that_changes_with_the_source(package: str):
    """An image's large layers then stay what they are; what is said of a revision makes none."""
    wheels, source, final = re.split(r"^FROM ", recipe(package), flags=re.MULTILINE)[1:]
    assert re.findall(r"^COPY (\S+)", wheels, re.MULTILINE) == [
        f"docker/{package}/requirements.txt"
    ]
    assert not re.search(r"^ARG|^ENV|^LABEL", wheels, re.MULTILINE)
    assert re.findall(r"^ARG (\w+)", source, re.MULTILINE) == ["BASE_IMAGE"]
    makes = re.findall(r"^(RUN|COPY|ADD|ARG)\b *(.*)$", final, re.MULTILINE)
    assert makes[:2] == [
        ("COPY", "--from=source /opt/source /opt/venv"),
        ("COPY", "--from=source /app /app"),
    ]
    assert {name for name, _ in makes[2:]} == {"ARG"}


@each_package
def test_only_the_own_package_and_common_are_copied(package: str):
    copied = [line.split() for line in instructions(package, "COPY") if "--from" not in line]
    sources = {source for line in copied for source in line[:-1]}
    requirements = f"docker/{package}/requirements.txt"
    project = {"pyproject.toml", "LICENSE", "NOTICE", "README.md", "docker/sbom.py"}
    assert sources == {requirements, *project, "common", package}


@each_package
def test_the_image_is_the_package(package: str):
    assert instructions(package, "ENTRYPOINT") == [f'["python", "-m", "{package}"]']
    assert instructions(package, "CMD") == ['["quick", "--out", "/results"]']


@each_package
def test_labels_and_provenance_name_revision_and_base(package: str):
    text = recipe(package)
    for label in ("title", "licenses", "version", "revision", "created", "base.name"):
        assert f"org.opencontainers.image.{label}=" in text
    for variable in ("QUINTET_BASE", "QUINTET_IMAGE", "QUINTET_REVISION"):
        assert f"{variable}=" in text


@each_package
def test_the_recipes_differ_in_the_name_only(package: str):
    """The final stage, that is; what comes before may build a package from source."""
    final = {name: recipe(name).split("FROM ")[-1] for name in (package, "metis")}
    short = package.replace("vocab_parallel", "vocab")
    named = final[package].replace(f"quintet-{short}", "quintet-metis").replace(package, "metis")
    assert named == final["metis"]


@each_package
def test_hadolint_finds_nothing(package: str):
    binary = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if binary is None:
        pytest.skip("hadolint is not installed beside this Python (extra dev)")
    file = ROOT / "docker" / package / "Dockerfile"
    done = subprocess.run([binary, file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_build_context_is_an_allow_list():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    allowed = {line[1:] for line in rules if line.startswith("!")}
    assert rules[0] == "*"
    assert allowed == {
        "LICENSE",
        "NOTICE",
        "README.md",
        "pyproject.toml",
        "common",
        "docker/*/requirements.txt",
        "docker/sbom.py",
        *PACKAGES,
    }


def test_no_init_file_hides_a_package_or_the_docker_sdk():
    assert not [*ROOT.glob("docker/**/__init__.py"), *ROOT.glob("tests/**/__init__.py")]
