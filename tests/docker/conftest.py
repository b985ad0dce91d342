"""The engine that answers, and the images that `make` builds with it."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from docker import DockerClient

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Engine:
    """A client that answers, and the command that speaks to the same engine."""

    client: "DockerClient"
    command: str


def answering(url: str | None) -> "DockerClient | None":
    """Return a client of the socket (of the environment's without a URL) if one answers there."""
    import docker
    from docker.errors import DockerException

    try:
        client = docker.DockerClient(base_url=url) if url else docker.from_env()
        client.ping()
    except DockerException:
        return None
    return client


def serve_podman(socket: Path) -> "tuple[subprocess.Popen[bytes], DockerClient | None]":
    """Start podman's Docker-compatible service on the socket and wait up to 10 s for it."""
    url = f"unix://{socket}"
    service = subprocess.Popen(
        ["podman", "system", "service", "--time", "0", url], stderr=subprocess.DEVNULL
    )
    client = None
    for _ in range(50):
        client = answering(url) if socket.exists() else None
        if client or service.poll() is not None:
            break
        time.sleep(0.2)
    return service, client


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    pytest.importorskip("docker.client", reason="the docker SDK is not installed (extra dev)")
    client = answering(None)
    if client:
        yield Engine(client, os.environ.get("DOCKER", "docker"))
        return
    if not shutil.which("podman"):
        pytest.skip("no engine: no Docker-compatible socket answers and there is no podman")
    service, client = serve_podman(tmp_path_factory.mktemp("podman") / "api.sock")
    try:
        if client is None:
            pytest.skip("no engine: podman's API service does not start here")
        yield Engine(client, "podman")
    finally:
        if client:
            client.close()
        service.terminate()
        service.wait(10)


def base_image() -> str:
    """The base that the build will use: what the caller set, or the one that the recipes pin."""
    recipe = (ROOT / "docker" / "metis" / "Dockerfile").read_text()
    pinned = recipe.split("ARG BASE_IMAGE=")[1].split()[0]
    return os.environ.get("BASE_IMAGE") or pinned


@pytest.fixture(scope="session")
def build(engine: Engine) -> Callable[[str], str]:
    """Return a function that builds an artifact's image by `make` and returns the image's id."""
    from docker.errors import ImageNotFound

    try:
        engine.client.images.get(base_image())
    except ImageNotFound:
        pytest.skip(
            f"the base is not here: {engine.command} pull {base_image()}, or set BASE_IMAGE"
        )

    def build_by_make(artifact: str) -> str:
        make = ["make", f"{artifact}-image", "RUNTIME=docker", f"DOCKER={engine.command}"]
        subprocess.run(make, cwd=ROOT, check=True)
        tag = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
        ).stdout.strip()
        image = engine.client.images.get(f"quintet-{artifact}:{tag or 'unversioned'}")
        return str(image.id)

    return build_by_make
