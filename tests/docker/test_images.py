"""Every image, built by `make` and driven through the engine's API as a user would drive it."""

import io
import json
import os
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from docker import DockerClient

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = ("helix", "metis", "beta", "puzzle", "vocab_parallel")
BEGUN_S = 30
"""After so long a suite is at its first case on any machine."""
pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(1800),
    # The SDK leaves the sockets of finished streams to the garbage collector.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
    ),
]


@dataclass(frozen=True)
class Result:
    """What a container left behind."""

    status: int
    output: str
    errors: str


@dataclass(frozen=True)
class Image:
    """One artifact's image and how to run it; containers get no network."""

    client: "DockerClient"
    package: str
    id: str

    def run(self, *command: str, image: str = "", **options: Any) -> Result:
        container = self.client.containers.run(
            image or self.id, list(command), detach=True, network_mode="none", **options
        )
        try:
            status = container.wait(timeout=600)["StatusCode"]
            output = container.logs(stdout=True, stderr=False).decode()
            return Result(status, output, container.logs(stdout=False, stderr=True).decode())
        finally:
            container.remove(force=True)


@pytest.fixture(scope="module", params=[p for p in PACKAGES if (ROOT / p / "artifact.py").exists()])
def image(request: pytest.FixtureRequest, engine: Any, build: Callable[[str], str]) -> Image:
    name = request.param.replace("vocab_parallel", "vocab")
    return Image(engine.client, request.param, build(name))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results folder that belongs to who calls, and to nobody privileged."""
    if os.getuid() == 0:
        os.chown(tmp_path, 12345, 12345)
    return tmp_path


def soon_planned(image: Image) -> str:
    """Return an experiment: the first, but of Helix one whose method searches nothing."""
    done = image.run("list", "--json")
    assert done.status == 0, done.errors
    names = [one["name"] for one in json.loads(done.output)]
    return next((name for name in names if name.endswith("-swarm")), names[0])


def test_the_image_states_its_revision_and_base(image: Image):
    config = image.client.images.get(image.id).attrs["Config"]
    environment = dict(line.split("=", 1) for line in config["Env"])
    labels = config["Labels"]
    assert labels["org.opencontainers.image.revision"] == environment["QUINTET_REVISION"]
    assert labels["org.opencontainers.image.base.name"] == environment["QUINTET_BASE"]
    assert environment["QUINTET_IMAGE"].startswith(labels["org.opencontainers.image.title"])
    assert environment["QUINTET_REVISION"] not in ("", "unversioned")
    assert labels["org.opencontainers.image.version"] == PROJECT["version"]
    assert labels["org.opencontainers.image.licenses"] == PROJECT["license"]
    assert datetime.fromisoformat(labels["org.opencontainers.image.created"]).tzinfo
    assert "org.opencontainers.image.source" not in labels


def test_the_source_is_in_thin_last_layers(image: Image):
    sizes = [layer["Size"] for layer in image.client.api.history(image.id)]
    thin = [size for size in sizes if size][:2]
    assert sum(thin) < 4e6


def test_the_bill_of_materials_is_what_is_installed(image: Image):
    code = (
        "import json; from importlib.metadata import distributions; from packaging.utils import"
        " canonicalize_name as plain; print(json.dumps([json.load(open('/app/sbom.json')),"
        " {plain(d.name): d.version for d in distributions(path=[__import__('sysconfig')"
        ".get_path('purelib')])}]))"
    )
    done = image.run("-c", code, entrypoint="python")
    bill, installed = json.loads(done.output)
    listed = {part["name"]: part["version"] for part in bill["components"]}
    assert {name: listed.get(name) for name in installed} == installed
    assert bill["metadata"]["component"]["version"] == PROJECT["version"]


def test_torchrun_starts_the_python_that_sees_the_wheels(image: Image):
    command = ("--nproc-per-node", "2", "-m", image.package, "--version")
    done = image.run(*command, entrypoint="torchrun")
    assert done.status == 0, done.errors
    said = f"{image.package} of quintet {PROJECT['version']}"
    assert done.output.count(said) == 2  # two ranks may write at once, into one line


def test_without_arguments_for_the_user_it_is_not_root(image: Image):
    done = image.run("-c", "id -u; touch /app/x 2>&1 || echo read-only", entrypoint="bash")
    assert done.output.split()[0] == "10001"
    assert done.output.rstrip().endswith("read-only")


def test_torch_is_the_bases_own_and_the_package_is_the_images(image: Image):
    code = f"import torch, {image.package} as p; print(torch.__file__); print(p.__file__)"
    done = image.run("-c", code, entrypoint="python")
    torch, package = done.output.splitlines()
    assert not torch.startswith("/opt/venv/")
    assert package == f"/app/{image.package}/__init__.py"


def test_no_other_artifact_is_inside(image: Image):
    done = image.run("-c", "ls /app", entrypoint="bash")
    assert set(done.output.split()) & {*PACKAGES, "tests", "docker"} == {image.package}


def test_a_users_mistake_is_one_line_and_status_2(image: Image):
    done = image.run("plan", "/no/such/cluster.toml", "--out", "/tmp/results")
    assert done.status == 2
    assert "/no/such/cluster.toml" in done.errors
    assert "Traceback" not in done.errors


def test_ctrl_c_ends_a_suite_in_one_line_and_status_130(image: Image):
    container = image.client.containers.run(image.id, ["full"], detach=True, network_mode="none")
    try:
        for _ in range(BEGUN_S):  # or until it says what it does: a first case may be a long one
            if container.logs():
                break
            time.sleep(1)
        # Python drops an interrupt that falls into a finaliser, of which a compiler runs many.
        for _ in range(30):
            container.kill(signal="SIGINT")
            time.sleep(2)
            container.reload()
            if container.status != "running":
                break
        errors = container.logs(stdout=False, stderr=True).decode()
        assert container.wait(timeout=10)["StatusCode"] == 130
        assert errors.splitlines()[-1].startswith("interrupted: ")
    finally:
        container.remove(force=True)


def test_what_it_writes_belongs_to_the_caller(image: Image, results: Path):
    owner = results.stat()
    mount = {str(results): {"bind": "/results", "mode": "rw"}}
    user = f"{owner.st_uid}:{owner.st_gid}"
    experiment = soon_planned(image)
    done = image.run("plan", experiment, "--out", "/results", user=user, volumes=mount)
    assert done.status == 0, done.errors
    written = [path for path in results.rglob("*") if path.is_file()]
    assert written
    assert {(path.stat().st_uid, path.stat().st_gid) for path in results.rglob("*")} == {
        (owner.st_uid, owner.st_gid)
    }


def test_a_user_can_build_on_it(image: Image):
    recipe = f"FROM {image.id}\nENV WHERE=mine\nLABEL test=quintet\n".encode()
    options = (
        {"isolation": os.environ["BUILDAH_ISOLATION"]} if "BUILDAH_ISOLATION" in os.environ else {}
    )
    built, _ = image.client.images.build(fileobj=io.BytesIO(recipe), rm=True, **options)
    try:
        done = image.run("-c", "echo $WHERE", image=built.id, entrypoint="bash")
        assert done.output == "mine\n"
    finally:
        image.client.images.remove(built.id, force=True)
