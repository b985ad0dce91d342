"""Two containers of helix' image form one Ray cluster and serve a client outside of both."""

import json
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(1800),
    # The SDK leaves the sockets of finished streams to the garbage collector.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
    ),
]
SERVE_S = 400
"""How long two Ray nodes, profile, plan and workers may take on a busy machine."""


def free_ports(count: int) -> list[int]:
    """Return so many ports that are free now."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def asked(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = json.dumps(body).encode() if body else None
    with urllib.request.urlopen(url, data, timeout=60) as answer:
        return json.loads(answer.read())


@pytest.fixture
def started(engine: Any) -> Iterator[Callable[..., Any]]:
    """Start a container of an image with a shell command, removed in the end."""
    from docker.types import Ulimit

    running = []

    def start(image: str, command: str, **options: Any) -> Any:
        container = engine.client.containers.run(
            image,
            [command],
            entrypoint=["bash", "-c"],
            detach=True,
            network_mode="host",  # two addresses would need a bridge, which not every host has
            shm_size="512m",
            ulimits=[Ulimit(name=name, soft=20000, hard=20000) for name in ("nofile", "nproc")],
            environment={"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"},
            **options,
        )
        running.append(container)
        return container

    yield start
    for container in running:
        container.remove(force=True)


def test_two_containers_form_one_cluster_and_serve_the_host(
    build: Callable[[str], str], started: Callable[..., Any], tmp_path: Path
):
    image = build("helix")
    if os.getuid() == 0:
        tmp_path.chmod(0o777)
    gcs, clients, http, head_agent, worker_agent = free_ports(5)
    # Both take ports of the host, so none that Ray would take by default.
    ray = (
        "ray start --num-cpus=2 --object-store-memory=100000000"
        " --min-worker-port=0 --max-worker-port=0"
    )
    head = started(
        image,
        f"{ray} --head --port={gcs} --ray-client-server-port={clients} --include-dashboard=false"
        f" --dashboard-agent-listen-port={head_agent} && exec python -m helix run serve-tiny"
        f" --out /results --set serve.address=auto --set serve.host=127.0.0.1"
        f" --set serve.port={http}",
        volumes={str(tmp_path): {"bind": "/results", "mode": "rw"}},
    )
    # All four machines of the experiment are in the second container, the service in the first.
    worker = started(
        image,
        f"""until {ray} --address=127.0.0.1:{gcs} --resources='{{"this": 4}}' --block"""
        f" --dashboard-agent-listen-port={worker_agent}; do sleep 2; done",
    )
    health = wait_for(f"http://127.0.0.1:{http}/health", head, worker)
    assert health["status"] == "ok"
    assert set(health["machines"]) == {"0", "1", "2", "3"}
    prompt = {"prompt": "Hello", "max_tokens": 8, "ignore_eos": True}
    answer = asked(f"http://127.0.0.1:{http}/v1/completions", prompt)
    assert answer["usage"]["completion_tokens"] == 8
    head.kill(signal="SIGTERM")
    assert head.wait(timeout=120)["StatusCode"] == 0


def wait_for(url: str, *containers: Any) -> dict[str, Any]:
    """Return what the URL answers as soon as it does; fail with the logs if it never does."""
    for _ in range(SERVE_S):
        try:
            return asked(url)
        except (urllib.error.URLError, ConnectionError):
            time.sleep(1)
        for container in containers:
            container.reload()
        if any(container.status != "running" for container in containers):
            break
    logs = [container.logs().decode()[-2000:] for container in containers]
    raise AssertionError(f"nothing served at {url}:\n" + "\n---\n".join(logs))
