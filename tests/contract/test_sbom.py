"""The images' bills of materials: CycloneDX, every pin that holds here, the same twice."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PACKAGES = ("helix", "metis", "beta", "puzzle", "vocab_parallel")
BASE = f"registry:5000/some/base:26.06-py3@sha256:{'a' * 64}"
if not (ROOT / "docker").is_dir():
    pytest.skip("an image has no recipes of images", allow_module_level=True)


def printed(package: str, base: str = BASE) -> str:
    file = f"docker/{package}/requirements.txt"
    command = [sys.executable, "docker/sbom.py", file, "--name", "an-image", "--base", base]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module", params=PACKAGES)
def package(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def bill(package: str) -> dict[str, Any]:
    return json.loads(printed(package))


def test_it_has_the_fields_that_the_specification_requires(bill: dict[str, Any]):
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", bill["serialNumber"])
    parts = [bill["metadata"]["component"], *bill["components"]]
    assert all(part["type"] in ("container", "library") and part["name"] for part in parts)
    references = [part["bom-ref"] for part in parts]
    assert len(set(references)) == len(references)
    (graph,) = bill["dependencies"]
    assert [graph["ref"], *graph["dependsOn"]] == references
    for part in bill["components"]:
        for value in part.get("hashes", []):
            assert value["alg"] == "SHA-256"
            assert re.fullmatch("[0-9a-f]{64}", value["content"])


def test_it_lists_the_pins_that_hold_here_with_all_their_hashes(package: str, bill: dict[str, Any]):
    wheels = {
        part["purl"]: [value["content"] for value in part["hashes"]]
        for part in bill["components"]
        if part.get("purl", "").startswith("pkg:pypi/")
    }
    text = (ROOT / "docker" / package / "requirements.txt").read_text()
    wanted = {}
    for entry in re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines():
        pin, *hashes = (part.strip() for part in entry.split("--hash=sha256:"))
        marker = Requirement(pin).marker
        if marker is None or marker.evaluate():
            wanted[f"pkg:pypi/{pin.split()[0].replace('==', '@')}"] = hashes
    assert wheels == wanted


def test_it_names_the_project_and_the_base_and_calls_itself_incomplete(bill: dict[str, Any]):
    base, own, *_ = bill["components"]
    assert (base["name"], base["version"]) == ("registry:5000/some/base", "26.06-py3")
    assert base["hashes"][0]["content"] == "a" * 64
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert own["purl"] == f"pkg:generic/quintet@{version}"
    assert own["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert bill["compositions"] == [{"aggregate": "incomplete", "assemblies": ["an-image"]}]


def test_it_is_the_same_twice_and_another_for_another_base():
    assert printed("metis") == printed("metis")
    serial = {json.loads(printed("metis", base))["serialNumber"] for base in (BASE, "other/base:1")}
    assert len(serial) == 2
