"""A way out to vLLM: the parts of a plan that are plain pipelines, as commands and a router.

vLLM serves one pipeline an engine: each stage on one machine, each machine in one stage. A plan is
more general, so that it is cut into parts that share no link: a part that is one row of machines
becomes an engine, and a router shares requests among the engines by the planned flow. Work that
changes between rows is what this form cannot do; such parts are left out by name.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

import msgspec

from common.errors import InputError
from common.files import write
from helix.inputs.cluster import FIRST, SINK, SOURCE
from helix.inputs.experiment import Experiment
from helix.plan.plans import Plan, Route, Service

PORT, RAY_PORT = 8000, 6379
SHARES = 1000  # what the router's weights add up to, about


class Stage(msgspec.Struct, frozen=True):
    """A machine of the cluster, its kind and how many layers it holds."""

    machine: int
    kind: str
    layers: int


class Pipeline(msgspec.Struct, frozen=True):
    """Stages in order of their layers, and the planned flow, tokens per second."""

    stages: tuple[Stage, ...]
    flow: float


class Left(msgspec.Struct, frozen=True):
    """Machines that no engine is made of, and why."""

    machines: tuple[int, ...]
    why: str


class Engines(msgspec.Struct, frozen=True):
    """What vLLM can serve of a plan, what it cannot, and the share of the flow that is kept."""

    pipelines: tuple[Pipeline, ...]
    left: tuple[Left, ...]
    kept: float

    @property
    def said(self) -> str:
        """In a sentence."""
        engines = f"{len(self.pipelines)} {'engine' if len(self.pipelines) == 1 else 'engines'}"
        said = f"vllm: {engines}, {100 * self.kept:.1f} % of the planned flow"
        for one in self.left:
            said += f"; left out: {_named(one.machines)} ({one.why})"
        return said


def engines(plan: Plan, gpus: dict[str, int]) -> Engines:
    """Return the plain pipelines of a plan; `gpus` are those of a machine by kind, 1 if not given.

    Raises InputError where there is none.
    """
    pipelines, left = list[Pipeline](), list[Left]()
    for service in plan.services:
        for part in _parts(service):
            one = _pipeline(plan, service, part, gpus)
            if isinstance(one, Pipeline):
                pipelines.append(one)
            else:
                left.append(one)
    if not pipelines:
        why = "; ".join(f"{_named(one.machines)}: {one.why}" for one in left)
        raise InputError(
            f"--export vllm: no part of the plan is a plain pipeline ({why or 'no work passes'});"
            " plan with --method separate or --method homogeneous, or serve it by the verb run"
        )
    pipelines.sort(key=lambda one: -one.flow)
    kept = sum(one.flow for one in pipelines) / plan.flow
    return Engines(tuple(pipelines), tuple(left), kept)


def _parts(service: Service) -> list[list[int]]:
    """Return the service's machines in use, by parts that share no link with flow."""
    used = _used(service)
    groups = {place: {place} for route in used for place in (route.tail, route.head)}
    for coordinator in (SOURCE, SINK):
        groups.pop(coordinator, None)
    for route in used:
        if route.tail != SOURCE and route.head != SINK:
            joined = groups[route.tail] | groups[route.head]
            for place in joined:
                groups[place] = joined
    return [sorted(group) for group in {id(one): one for one in groups.values()}.values()]


def _used(service: Service) -> list[Route]:
    return [route for route in service.routes if route.flow > 0]


def _pipeline(
    plan: Plan, service: Service, part: Sequence[int], gpus: dict[str, int]
) -> Pipeline | Left:
    """Return a part as a pipeline, or why it is none."""
    row = sorted(part, key=lambda place: service.intervals[place - FIRST])
    machines = tuple(service.machines[place - FIRST] for place in row)
    runs = [service.intervals[place - FIRST] for place in row]
    routes = [route for route in _used(service) if {route.tail, route.head} & set(part)]
    ways = {(route.tail, route.head) for route in routes}
    if ways != set(zip([SOURCE, *row], [*row, SINK], strict=True)):
        return Left(tuple(sorted(machines)), "work changes between rows of machines")
    if [end for _, end in runs[:-1]] != [start for start, _ in runs[1:]]:
        return Left(tuple(sorted(machines)), "work enters a machine in the middle of its layers")
    counts = {gpus.get(plan.machines[machine], 1) for machine in machines}
    if len(counts) > 1:
        return Left(tuple(sorted(machines)), "unlike numbers of GPUs, and vLLM has one for all")
    stages = [
        Stage(machine, plan.machines[machine], end - start)
        for machine, (start, end) in zip(machines, runs, strict=True)
    ]
    return Pipeline(tuple(stages), sum(route.flow for route in routes if route.tail == SOURCE))


def _named(machines: Sequence[int]) -> str:
    return f"machine{'s' * (len(machines) > 1)} {', '.join(map(str, machines))}"


def export(plan: Plan, experiment: Experiment, folder: Path) -> tuple[Engines, tuple[Path, ...]]:
    """Write an engine's script each, and the router's configuration; return what and where."""
    gpus = {kind: one.gpus for kind, one in experiment.profile.kinds.items()}
    found, written = engines(plan, gpus), list[Path]()
    for number, pipeline in enumerate(found.pipelines):
        tensor = gpus.get(pipeline.stages[0].kind, 1)
        text = script(number, pipeline, tensor, experiment)
        written.append(write(folder / f"engine-{number}.sh", text))
    written.append(write(folder / "nginx.conf", router(found)))
    return found, tuple(written)


def serve_command(pipeline: Pipeline, tensor: int) -> list[str]:
    """Return vLLM's command for a pipeline with so many GPUs a machine; `$MODEL` is the model."""
    command = ["vllm", "serve", "$MODEL", "--host", "0.0.0.0", "--port", str(PORT)]
    command += ["--pipeline-parallel-size", str(len(pipeline.stages))]
    command += ["--tensor-parallel-size", str(tensor)]
    if len(pipeline.stages) > 1:
        command += ["--distributed-executor-backend", "ray"]
    return command


def script(number: int, pipeline: Pipeline, tensor: int, experiment: Experiment) -> str:
    """Return a shell script that each of an engine's machines runs with its stage's number."""
    stages, last = pipeline.stages, len(pipeline.stages) - 1
    weights = shlex.quote(experiment.serve.weights) if experiment.serve.weights else ""
    model = f"MODEL=${{MODEL:-{weights}}}" if weights else "MODEL=${MODEL:?its folder or name}"
    partition = ",".join(str(stage.layers) for stage in stages)
    rows = [
        f"#   stage {i}: machine {stage.machine} ({stage.kind}), {stage.layers} layers"
        for i, stage in enumerate(stages)
    ]
    serve = " ".join(
        f'"{word}"' if word == "$MODEL" else word for word in serve_command(pipeline, tensor)
    )
    lines = [
        "#!/usr/bin/env bash",
        f"# Engine {number} of {experiment.name}: {pipeline.flow:.2f} tokens/s planned.",
        *rows,
        "set -euo pipefail",
        model,
    ]
    if last == 0:
        return "\n".join([*lines, f"exec {serve}", ""])
    return "\n".join(
        [
            *lines,
            "# On each machine, stage 0 first, for it waits for the others:",
            "#   STAGE=<its stage> HEAD=<address of stage 0> bash this-file",
            "# vLLM numbers stages from the machine that serves, then by the addresses of the",
            "# others: give these addresses that rise with their stages.",
            f"STAGE=${{STAGE:?0 to {last}}} HEAD=${{HEAD:?address of stage 0}}",
            'if [ "$STAGE" != 0 ]; then',
            f'  exec ray start --address="$HEAD:{RAY_PORT}" --num-gpus={tensor} --block',
            "fi",
            f'ray start --head --node-ip-address="$HEAD" --port={RAY_PORT} --num-gpus={tensor}',
            f"until ray status | grep -qF '/{tensor * len(stages)}.0 GPU'; do sleep 1; done",
            f"export VLLM_PP_LAYER_PARTITION={partition}",
            f"exec {serve}",
            "",
        ]
    )


def router(found: Engines) -> str:
    """Return nginx's configuration: requests go to the engines in proportion to their flow."""
    total = sum(one.flow for one in found.pipelines)
    rows = [
        f"        server engine-{number}:{PORT} weight={max(round(SHARES * one.flow / total), 1)};"
        for number, one in enumerate(found.pipelines)
    ]
    return "\n".join(
        [
            f"# {found.said}.",
            "# engine-N: the address of stage 0 of engine N, as the system resolves it.",
            "events {}",
            "http {",
            "    upstream engines {",
            *rows,
            "    }",
            "    server {",
            f"        listen {PORT};",
            "        location / {",
            "            proxy_pass http://engines;",
            "            proxy_http_version 1.1;",
            '            proxy_set_header Connection "";',
            "            proxy_buffering off;  # streams are passed on token by token",
            "            proxy_read_timeout 3600s;",
            "        }",
            "    }",
            "}",
            "",
        ]
    )
