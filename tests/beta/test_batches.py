"""Batching from end to end: planned, simulated, and served by made-up time, all by one rule."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import beta
from beta.inputs.model import Model
from beta.inputs.playing import SimulatorSettings, kind_of
from beta.inputs.profile import SINGLE, Config, Profile, Record
from beta.inputs.shapes import SHAPES
from beta.inputs.workload import Workload, gamma_workload
from beta.plan.placement import Group, Placement
from beta.run.controller import Controller
from beta.run.line import Line
from beta.run.specs import GroupSpec, ModelSpec, Reply
from beta.simulate import batching, events, fast, readable_batching
from beta.simulate.tables import tables_of
from tests.beta import virtual_time
from tests.beta.test_run_overload import Remote, deployment
from tests.beta.virtual_time import Device, played

SECONDS = {1: (0.1,), 2: (0.11,), 4: (0.13,), 8: (0.18,), 16: (0.28,)}
PIPED = {b: (0.55 * s, 0.5 * s) for b, (s,) in SECONDS.items()}
CONFIGS = {SINGLE: SECONDS, Config(1, 2): PIPED}
MINE = """
name = "mine"
profile = "my.csv"
cluster = { devices = 1, memory_gib = 2.0 }
traffic = { duration_s = 60 }
training = { on = "same" }
models = [{ types = ["a"], slo_s = 0.5, rate = 30 }]
simulator = { warm_up_s = 0 }
"""


def model(name: str = "a", slo_s: float = 0.5, rate: float = 30.0, cv: float = 1.0) -> Model:
    records = {c: Record(stage_s=s, weight_bytes=(1e9,) * c.pp) for c, s in CONFIGS.items()}
    profile = Profile(model="a", records=records)
    return Model(name=name, profile=profile, slo_s=slo_s, rate=rate, cv=cv)


def served(workload: Workload, models: tuple[Model, ...], config: Config = SINGLE) -> float:
    """Return the share in time of waiting stages on one group."""
    real = dict.fromkeys(range(len(models)), CONFIGS[config])
    pairs = zip(workload.model.tolist(), workload.arrival.tolist(), strict=True)
    asked = [(m, at, models[m].slo_s) for m, at in pairs]
    answers = played(Line(real, margin_s=0.004), real, asked)
    return sum(answer.in_time for answer in answers) / len(answers)


def test_by_default_batches_answer_what_single_requests_cannot(tmp_path: Path, monkeypatch):
    rows = [f"a,1,1,{b},0,{s},1000000000" for b, (s,) in SECONDS.items()]
    header = "model,op,pp,batch,stage,latency_s,weight_bytes"
    (tmp_path / "my.csv").write_text("\n".join((header, *rows)) + "\n")
    (tmp_path / "my.toml").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    experiment = beta.load("my.toml")
    plan = beta.plan(experiment)
    at = {metric.name: metric.value for metric in beta.simulate(experiment, plan).metrics}
    one_by_one = beta.load("my.toml", "simulator.kind=fast")
    alone = {m.name: m.value for m in beta.simulate(one_by_one, plan).metrics}
    assert alone["attainment"] < 0.4
    assert at["attainment"] >= 0.98
    assert plan.attainment >= 0.98
    models = (model(),)
    really = served(gamma_workload(models, duration=60), models)
    assert really == pytest.approx(at["attainment"], abs=0.03)


@pytest.mark.parametrize("config", [SINGLE, Config(1, 2)])
@pytest.mark.parametrize(("count", "rate", "cv"), [(1, 30.0, 4.0), (3, 10.0, 2.0)])
def test_a_service_of_waiting_stages_is_as_simulated(
    config: Config, count: int, rate: float, cv: float
):
    models = tuple(model(f"m{i}", 1.0, rate, cv) for i in range(count))
    workload = gamma_workload(models, duration=40)
    placement = Placement((Group(config, tuple(range(count))),))
    simulated = float(batching.simulate(workload, placement, models).good.mean())
    assert served(workload, models, config) == pytest.approx(simulated, abs=0.03)
    assert float(events.simulate(workload, placement, models).good.mean()) == pytest.approx(
        simulated, abs=0.03
    )


class Managed:
    """A group's manager without Ray: its line, over a stage that waits."""

    def __init__(self, models: int) -> None:
        real = dict.fromkeys(range(models), SECONDS)
        line = Line(real, margin_s=0.004)
        device = Device(lambda work, _: real[work.model][len(work.tokens)][0])
        self.pipeline = virtual_time.Group(line, [device]).pipeline
        self.handle = Remote(self._handle)

    async def _handle(self, model: int, tokens: list[int], left_s: float) -> Reply:
        answer = self.pipeline.ask(model, tokens, self.pipeline.now() + left_s)
        if answer is None:
            return Reply(admitted=False, reason="too late")
        return Reply(admitted=True, logits=await answer)


def dispatched(workload: Workload, slo_s: float, groups: int = 2) -> float:
    """Return the share in time of two models that all groups have, behind the real controller."""

    async def main() -> float:
        spec = ModelSpec(name="", shape=SHAPES["bert-micro"], seed=0, slo_s=slo_s)
        names = ("a", "b")
        models = tuple(msgspec.structs.replace(spec, name=name) for name in names)
        stage_s = dict.fromkeys(range(2), SECONDS)
        specs = tuple(
            GroupSpec(number=g, op=1, pp=1, models=(0, 1), stage_s=stage_s) for g in range(groups)
        )
        known = msgspec.structs.replace(deployment(1), models=models, groups=specs)
        controller = Controller(known)
        controller.opened = True
        for group in controller.groups:
            group.manager, group.ready = Managed(2), Any

        async def one(model: int, at: float) -> bool:
            await asyncio.sleep(at)
            return (await controller.submit(model, [1], None)).status == 200

        pairs = zip(workload.model.tolist(), workload.arrival.tolist(), strict=True)
        found = await asyncio.gather(*(one(model, at) for model, at in pairs))
        assert controller.outstanding.sum() == controller.own.sum() == 0
        return sum(found) / len(found)

    return virtual_time.run(main())


@pytest.mark.parametrize("rate", [60.0, 90.0])
def test_models_on_all_groups_still_fill_batches(rate: float):
    models = tuple(model(name, rate=rate / 2) for name in ("a", "b"))
    workload = gamma_workload(models, duration=15)
    placement = Placement((Group(SINGLE, (0, 1)),) * 2)
    simulated = float(events.simulate(workload, placement, models).good.mean())
    assert simulated >= float(batching.simulate(workload, placement, models).good.mean()) - 0.03
    assert dispatched(workload, 0.5) == pytest.approx(simulated, abs=0.03)


@pytest.mark.parametrize("rate", [60.0, 80.0, 200.0])
def test_an_overload_does_not_make_batches_small(rate: float):
    # At most 57 requests/s can be answered; by the first one's deadline alone 0.18 x 80 are.
    models = (model(rate=rate),)
    workload = gamma_workload(models, duration=20)
    placement = Placement((Group(SINGLE, (0,)),))
    most = 16 / 0.28 / rate
    for share in (
        batching.simulate(workload, placement, models).good.mean(),
        events.simulate(workload, placement, models).good.mean(),
        served(workload, models),
    ):
        assert share >= 0.75 * min(most, 1)


@settings(max_examples=25)
@given(st.integers(0, 99), st.sampled_from([5.0, 20.0, 60.0]), st.booleans())
def test_batches_are_never_late_and_equal_their_twin(seed: int, rate: float, two: bool):
    models = tuple(model(f"m{i}", slo, rate) for i, slo in enumerate((0.3, 1.0)))
    workload = gamma_workload(models, duration=3, seed=seed)
    groups = (Group(Config(1, 2), (0, 1)), Group(SINGLE, (1,)))
    placement = Placement(groups if two else groups[:1])
    found = batching.simulate(workload, placement, models)
    twin = readable_batching.simulate(workload, placement, models)
    assert found.finish.tolist() == twin.finish.tolist()
    assert found.good.tolist() == twin.good.tolist()
    slo = np.array([m.slo_s for m in models])[workload.model]
    for outcome in (found, events.simulate(workload, placement, models)):
        assert np.all((outcome.finish - workload.arrival)[outcome.good] <= slo[outcome.good] + 1e-6)


def test_a_profile_decides_how_it_is_played():
    known = {SINGLE: Record(stage_s={1: (0.1,)}, weight_bytes=(1.0,))}
    single = Model(name="s", profile=Profile(model="s", records=known))
    assert kind_of(SimulatorSettings(), (single,)) == "fast"
    assert kind_of(SimulatorSettings(), (single, model())) == "batching"
    assert kind_of(SimulatorSettings(kind="events"), (model(),)) == "events"
    assert kind_of(SimulatorSettings(dispatch="deadline"), (model(),)) == "fast"
    workload = gamma_workload((model(),), duration=5)
    tables = tables_of((model(),), (SINGLE,))
    assert fast.simulate(workload, Placement((Group(SINGLE, (0,)),)), tables).good.mean() < 0.5
