"""The pinned requirement files: exact, hashed, without hosts, and in step with pyproject.toml."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.markers import Environment, default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PACKAGES = ("helix", "metis", "beta", "puzzle", "vocab_parallel")
PYTHONS = ("3.11", "3.12", "3.13")
LOCKS = (
    "requirements.txt",
    "requirements-base.txt",
    "requirements-dev.txt",
    *(f"docker/{package}/requirements.txt" for package in PACKAGES),
)
if not (ROOT / "requirements.txt").exists():
    pytest.skip("an image has no requirement files", allow_module_level=True)


def environment(python: str) -> Environment:
    here = default_environment()
    here.update(python_version=python, python_full_version=f"{python}.0")
    here.update(sys_platform="linux", platform_system="Linux", platform_machine="x86_64")
    return here


def entries(lock: str) -> list[str]:
    """One string per pinned package: its first line and its hashes."""
    text = (ROOT / lock).read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not re.match(r" *#", line)]


def pins(lock: str, python: str) -> dict[str, str]:
    """Name -> version of what the file installs on this Python."""
    found: dict[str, str] = {}
    for entry in entries(lock):
        requirement = Requirement(entry.split("--hash")[0])
        if requirement.marker is None or requirement.marker.evaluate(environment(python)):
            (specifier,) = requirement.specifier
            found[canonicalize_name(requirement.name)] = specifier.version
    return found


def names(file: str) -> set[str]:
    return {Requirement(entry).name for entry in entries(file)}


def torch_pin() -> dict[str, str]:
    return pins("requirements-torch.txt", PYTHONS[0])


def declared(*extras: str) -> list[Requirement]:
    """The core requirements and those of the extras, an extra of our own opened up."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    found = [Requirement(text) for text in project["dependencies"]]
    for extra in extras:
        for requirement in map(Requirement, optional[extra]):
            own = requirement.name == project["name"]
            found += declared(*requirement.extras) if own else [requirement]
    return found


def unmet(wanted: list[Requirement], have: dict[str, str]) -> list[str]:
    """What is asked for and not pinned, or pinned to a version that does not satisfy it."""
    found = [(requirement, have.get(canonicalize_name(requirement.name))) for requirement in wanted]
    return [
        f"{requirement} (pinned: {version})"
        for requirement, version in found
        if version is None or not requirement.specifier.contains(version)
    ]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_is_exact_and_hashed(lock: str):
    for entry in entries(lock):
        assert re.match(r"\S+==\S+ ", entry), entry
        assert " --hash=sha256:" in entry, entry


@pytest.mark.parametrize("lock", [*LOCKS, "requirements-torch.txt"])
def test_no_file_names_a_host_or_an_index(lock: str):
    assert not re.search(
        r"://|index-url|find-links|\.(com|org|io|net)\b", (ROOT / lock).read_text()
    )


@pytest.mark.parametrize("python", PYTHONS)
def test_the_full_set_and_torch_satisfy_every_extra(python: str):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert not unmet(declared(*extras), pins("requirements.txt", python) | torch_pin())


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("package", PACKAGES)
def test_an_artifact_has_all_it_declares_beside_its_base(package: str, python: str):
    own = pins(f"docker/{package}/requirements.txt", python)
    base = pins("requirements-base.txt", python) | torch_pin()
    assert not unmet(declared(package.replace("_", "-"), "report", "test"), own | base)


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("package", PACKAGES)
def test_an_image_installs_nothing_over_its_base(package: str, python: str):
    assert not names("docker/base.txt") & set(pins(f"docker/{package}/requirements.txt", python))


@pytest.mark.parametrize("python", PYTHONS)
def test_the_tools_are_pinned(python: str):
    assert not unmet(declared("dev"), pins("requirements-dev.txt", python))


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("lock", LOCKS[1:])
def test_a_package_has_one_version_in_all_files(lock: str, python: str):
    full = pins("requirements.txt", python)
    assert pins(lock, python).items() <= full.items()


def test_nobody_depends_on_the_other_apex_or_on_ortools():
    everything = {name for lock in LOCKS for name in pins(lock, "3.12")}
    assert not everything & {"apex", "ortools"}


def test_megatron_core_stays_where_python_3_11_can_follow():
    (pin,) = [r for r in declared("vocab-parallel") if r.name == "megatron-core"]
    assert str(pin.specifier) == "==0.16.1"
