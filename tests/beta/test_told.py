"""What is read of logs, drawn, counted and said is so: each of these was once said wrongly."""

from pathlib import Path

import numpy as np
import pytest

from beta.inputs.arrivals import modulated_poisson
from beta.inputs.azure import read_2019, read_2021
from beta.inputs.experiment import ClusterSettings, Experiment, ModelSettings
from beta.inputs.load import load
from beta.inputs.profile import read_profiles
from beta.inputs.requests import own_requests
from beta.inputs.traffic import Traffic, Training
from beta.plan.answer import plan
from beta.run.books import Totals
from beta.run.endpoint import _Routes
from beta.simulate.answer import simulate
from common.artifact import Ask, Case
from tests.beta.test_inputs_traces import write_2019
from tests.beta.test_run_overload import controller_over
from tests.beta.virtual_time import run

BOM = "\ufeff"
HEAD = "model,op,pp,batch,stage,latency_s,weight_bytes\n"


def modulated_by_hand(
    state_s: list[float], rates: list[float], count: int, seed: int
) -> list[float]:
    """Return the arrivals as the original's loop draws them, one draw at a time."""
    random, found, now, state = np.random.RandomState(seed), list[float](), 0.0, 0
    while True:
        chances = np.ones(len(rates)) / (len(rates) - 1)
        chances[state] = 0
        following = random.choice(len(rates), p=chances)  # one draw, whatever it is among
        until = now + random.exponential(scale=state_s[state])
        at = now
        while (at := at + random.exponential(scale=1 / rates[state])) < until:
            found.append(at)
            if len(found) == count:
                return found
        now, state = until, following


@pytest.mark.parametrize(
    ("state_s", "rates"), [([5.0, 20.0], [10.0, 1.0]), ([2.0, 3.0, 4.0], [8.0, 1.0, 3.0])]
)
def test_a_modulated_process_is_drawn_bit_by_bit_as_by_the_original(
    state_s: list[float], rates: list[float]
):
    for seed in range(5):
        found = modulated_poisson(state_s=state_s, rates=rates, duration=200, seed=seed)
        assert len(found) == int(200 * np.dot(state_s, rates) / sum(state_s))
        assert found.tolist() == modulated_by_hand(state_s, rates, len(found), seed)


def test_files_with_a_byte_order_mark_are_read(tmp_path: Path):
    log, profile, trace = (tmp_path / name for name in ("log.csv", "my.csv", "2021.txt"))
    log.write_text(f"{BOM}arrival_s,model\n1,a\n2,a\n", encoding="utf-8")
    assert own_requests(log, ("a",)).arrivals[0].tolist() == [0.0, 1.0]
    profile.write_text(f"{BOM}{HEAD}a,1,1,1,0,0.1,9\n", encoding="utf-8")
    assert list(read_profiles(profile)) == ["a"]
    trace.write_text(f"{BOM}app,func,end_timestamp,duration\na,f,2,1\n", encoding="utf-8")
    assert read_2021(trace, "0.0.0", "0.0.1").arrivals[0].tolist() == [1.0]
    write_2019(tmp_path, 1, {"f": {0: 3}})
    (day,) = tmp_path.glob("*.d01.csv")
    day.write_text(BOM + day.read_text(), encoding="utf-8")
    assert read_2019(tmp_path, "0.0.0", "0.0.1").per_minute.tolist() == [[3]]


def asked(folder: Path, traffic: Traffic, *, slo_s: float = 5.0) -> Case:
    (folder / "my.csv").write_text(f"{HEAD}a,1,1,1,0,0.1,1000000000\n")
    experiment = Experiment(
        name="mine",
        cluster=ClusterSettings(devices=1, memory_gib=2.0),
        models=(ModelSettings(types=("a",), slo_s=slo_s),),
        profile=str(folder / "my.csv"),
        traffic=traffic,
        training=Training(on="same"),
    )
    return Case(verb="plan", experiment=experiment)


def test_rates_of_a_log_in_epoch_seconds_are_its_requests_over_its_length(tmp_path: Path):
    rows = [f"{1_700_000_000 + 0.5 * i},a-0" for i in range(201)]
    (tmp_path / "log.csv").write_text("\n".join(["arrival_s,model", *rows]))
    case = asked(tmp_path, Traffic(source="requests", path=str(tmp_path / "log.csv")))
    (model,) = load(case.experiment).models
    assert model.rate == pytest.approx(2.01)
    found = plan(case, Ask(folder=None))
    assert found.plan.models[0].rate == model.rate
    assert found.plan.attainment == 1


def test_rows_of_a_trace_that_are_left_out_are_told_by_plan_and_simulate(tmp_path: Path):
    path = tmp_path / "trace.txt"
    rows = [f"app,f,{at},0.5" for at in (*np.cumsum(np.linspace(1, 2, 30)), 90, 200)]
    path.write_text("\n".join(["app,func,end_timestamp,duration", *map(str, rows)]))
    end = {"start": "0.0.0", "end": "0.0.1"}
    traffic = Traffic(source="azure2021", path=str(path), **end)
    case = asked(tmp_path, traffic)
    said = "left out: 2 rows of the trace outside 0.0.0 to 0.0.1"
    found = plan(case, Ask(folder=None))
    assert said in found.hints
    assert said in simulate(case, found.plan, Ask(folder=None)).hints


def test_of_no_request_in_time_no_latency_is_told(tmp_path: Path):
    case = asked(tmp_path, Traffic(rate=1.0, duration_s=30.0), slo_s=0.05)
    found = plan(case, Ask(folder=None))
    summary = simulate(case, found.plan, Ask(folder=None)).summary
    assert "0.00 % of" in summary
    assert "no latency to tell" in summary
    assert "0.000 s" not in summary


def test_a_service_is_ready_and_counts_only_after_its_outputs_were_compared():
    async def main() -> None:
        controller = controller_over([0.1])
        controller.opened = False
        ready = _Routes(controller).ready
        assert (await ready(None)).status == 503  # type: ignore[arg-type]
        checked = await controller.check(0, [1], 1.0)
        assert checked.outcome == "served"
        assert controller.books.totals() == Totals(*[0] * len(Totals._fields))
        early = await controller.submit(0, [1], 1.0)
        assert (early.status, early.reason) == (503, "the service is starting")
        controller.opened = True
        assert (await ready(None)).status == 200  # type: ignore[arg-type]
        await controller.submit(0, [1], 1.0)
        totals = controller.books.totals()
        assert (totals.received, totals.served, totals.rejected) == (2, 1, 1)

    run(main())


def test_more_answers_than_requests_are_not_called_balanced():
    books = dict.fromkeys(Totals._fields, 0)
    assert Totals(**books | {"received": 180, "served": 180}).balanced
    assert not Totals(**books | {"received": 180, "served": 181, "in_flight": -1}).balanced
