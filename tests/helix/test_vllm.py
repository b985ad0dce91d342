"""The way out to vLLM: what is a plain pipeline is written whole, all else is named."""

import argparse
import re
import subprocess
from pathlib import Path

import pytest

import helix
from common.errors import InputError
from helix.inputs.cluster_source import ClusterSource, MachineGroup
from helix.inputs.experiment import ROOFLINE, Experiment, KindSource, ProfileSource
from helix.inputs.model_source import ModelSource
from helix.inputs.search import SearchSettings
from helix.inputs.serving import ServeSettings
from helix.plan.plans import Plan, Route, Service
from helix.run.vllm import engines, export, serve_command


def documented() -> argparse.ArgumentParser:
    """Return a parser of the arguments of `vllm serve` that its documentation names."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("model")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--pipeline-parallel-size", type=int)
    parser.add_argument("--tensor-parallel-size", type=int)
    parser.add_argument("--distributed-executor-backend", choices=["ray", "mp", "uni"])
    return parser


def service(*rows: tuple[float, tuple[int, ...]], ways: tuple[Route, ...] = ()) -> Service:
    """Return a service of 10 layers: rows of machines, each by its flow and its layers."""
    runs, routes, place = list[tuple[int, int]](), list[Route](), 2
    for flow, widths in rows:
        start, before = 0, 0
        for width in widths:
            runs.append((start, start + width))
            routes.append(Route(before, place, flow, 2 * flow))
            start, before, place = start + width, place, place + 1
        routes.append(Route(before, 1, flow, 2 * flow))
    return Service(
        name="all",
        machines=tuple(range(len(runs))),
        layers=10,
        intervals=tuple(runs),
        routes=(*routes, *ways),
        flow=sum(flow for flow, _ in rows),
    )


def plan_of(one: Service, kinds: tuple[str, ...]) -> Plan:
    return Plan(
        experiment="x", method="search", objective="flow", services=(one,), flow=one.flow,
        bound=one.flow, estimate=None, machines=kinds,
    )  # fmt: skip


def test_rows_become_engines_with_their_layers_and_the_flow_is_kept():
    one = service((30.0, (7, 3)), (10.0, (10,)), ways=(Route(2, 4, 0.0, 1.0),))
    found = engines(plan_of(one, ("A", "B", "C")), {"A": 2, "B": 2})
    first, second = found.pipelines
    assert [(s.machine, s.kind, s.layers) for s in first.stages] == [(0, "A", 7), (1, "B", 3)]
    assert (second.flow, found.kept, found.left) == (10.0, 1.0, ())
    asked = documented().parse_args(serve_command(first, 2)[2:])
    assert (asked.pipeline_parallel_size, asked.tensor_parallel_size) == (2, 2)
    assert asked.distributed_executor_backend == "ray"
    assert (
        documented().parse_args(serve_command(second, 1)[2:]).distributed_executor_backend is None
    )


def test_parts_that_are_no_pipeline_are_named_with_what_is_lost():
    crossed = service((30.0, (5, 5)), (10.0, (5, 5)), (60.0, (10,)), ways=(Route(2, 5, 5.0, 9.0),))
    found = engines(plan_of(crossed, ("A",) * 5), {})
    assert found.kept == pytest.approx(0.6)
    assert found.left[0].machines == (0, 1, 2, 3)
    assert "60.0 % of the planned flow; left out: machines 0, 1, 2, 3 (work changes" in found.said
    uneven = service((30.0, (7, 3)))
    with pytest.raises(InputError, match="machines 0, 1: unlike numbers of GPUs"):
        engines(plan_of(uneven, ("A", "B")), {"A": 2})


def test_the_files_say_the_partition_and_share_requests_by_flow(tmp_path: Path):
    experiment = Experiment(
        name="two-rows",
        model=ModelSource(config="Llama-3-8B"),
        cluster=ClusterSource(
            machines=(MachineGroup(kind="L4x2", count=2), MachineGroup(kind="H100"))
        ),
        profile=ProfileSource(source=ROOFLINE, kinds={"L4x2": KindSource(gpu="L4", gpus=2)}),
        search=SearchSettings(method="separate"),
        serve=ServeSettings(weights="/models/a model"),
    )
    plan = helix.plan(experiment)
    found, written = export(plan, experiment, tmp_path)
    assert [path.name for path in written] == ["engine-0.sh", "engine-1.sh", "nginx.conf"]
    assert found.kept == pytest.approx(1.0)
    texts = [path.read_text() for path in written]
    scripts = {len(one.stages): text for one, text in zip(found.pipelines, texts, strict=False)}
    for path in written[:2]:
        subprocess.run(["bash", "-n", path], check=True)
    assert "export VLLM_PP_LAYER_PARTITION=16,16\n" in scripts[2]
    assert "--tensor-parallel-size 2" in scripts[2]
    assert "ray start --head" in scripts[2]
    assert "grep -qF '/4.0 GPU'" in scripts[2]  # of two machines
    assert "PARTITION" not in scripts[1]
    assert "ray" not in scripts[1]
    assert "MODEL=${MODEL:-'/models/a model'}" in scripts[1]
    weights = [int(weight) for weight in re.findall(r"weight=(\d+);", texts[2])]
    assert weights == [round(1000 * one.flow / plan.flow) for one in found.pipelines]
