"""Print an image's bill of materials, CycloneDX 1.6 in JSON, from its pinned requirements.

It holds what the recipe puts over the base: the wheels with version, package URL and hashes, and
the project itself; of the base it names the image and no more, so it calls itself incomplete. A
pin that the interpreter's platform leaves out is left out here too. Where the pins admit several
files (one a platform), all of their hashes stand there, and the installed file has one of them. The
same files give the same text to the byte: there is no time and no random number in it.

    python docker/sbom.py docker/metis/requirements.txt --name quintet-metis --base IMAGE
"""

import argparse
import json
import re
import tomllib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

Component = dict[str, Any]
_IMAGE = re.compile(r"(?P<name>.+?)(:(?P<tag>[\w.-]+))?(@sha256:(?P<digest>[0-9a-f]{64}))?")


def main() -> None:
    """Print the bill of the arguments' image."""
    parser = argparse.ArgumentParser(description="Print an image's bill of materials.")
    parser.add_argument("requirements", type=Path, help="exact pins with hashes")
    parser.add_argument("--name", required=True, help="the image's name")
    parser.add_argument("--base", required=True, help="its base: name, tag, digest")
    parser.add_argument("--project", type=Path, default=Path("pyproject.toml"))
    asked = parser.parse_args()
    project = tomllib.loads(asked.project.read_text(encoding="utf-8"))["project"]
    pins = asked.requirements.read_text(encoding="utf-8")
    print(json.dumps(bill(asked.name, asked.base, project, pins), indent=1))


def bill(name: str, base: str, project: dict[str, Any], pins: str) -> dict[str, Any]:
    """Return the whole document."""
    own = _library("generic", project["name"], project["version"])
    own["licenses"] = [{"license": {"id": project["license"]}}]
    content = [_base(base), own, *wheels(pins)]
    image = {"type": "container", "name": name, "version": project["version"], "bom-ref": name}
    identity = json.dumps([image, content], sort_keys=True)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, identity)}",
        "version": 1,
        "metadata": {"component": image},
        "components": content,
        "dependencies": [{"ref": name, "dependsOn": [part["bom-ref"] for part in content]}],
        "compositions": [{"aggregate": "incomplete", "assemblies": [name]}],
    }


def wheels(pins: str) -> Iterator[Component]:
    """Yield a component for each pin that holds on this platform."""
    for line in pins.replace("\\\n", " ").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        requirement = Requirement(line.split("--hash=")[0])
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        (pinned,) = requirement.specifier
        found = re.findall(r"--hash=sha256:([0-9a-f]{64})", line)
        hashes = [{"alg": "SHA-256", "content": one} for one in found]
        name = canonicalize_name(requirement.name)
        yield _library("pypi", name, pinned.version) | {"hashes": hashes}


def _library(kind: str, name: str, version: str) -> Component:
    url = f"pkg:{kind}/{name}@{version}"
    return {"type": "library", "bom-ref": url, "name": name, "version": version, "purl": url}


def _base(image: str) -> Component:
    parts = _IMAGE.fullmatch(image)
    if parts is None:
        raise SystemExit(f"--base is {image!r}, expected an image's name, tag and digest")
    made: Component = {"type": "container", "bom-ref": image, "name": parts["name"]}
    if parts["tag"]:
        made["version"] = parts["tag"]
    if parts["digest"]:
        made["hashes"] = [{"alg": "SHA-256", "content": parts["digest"]}]
    return made


if __name__ == "__main__":
    main()
