"""Head, wires and workers together, in one process: tokens, faults, overload, books."""

import asyncio

import pytest
import torch
from msgspec.structs import replace

from common.errors import InputError
from helix.inputs.workload import WorkloadSettings
from helix.run.decoder_config import config_of_shape
from helix.run.deploy import Deployment
from helix.run.messages import Key, Sampling
from helix.run.request import Ask, NotNow
from helix.run.stage import Holding, Item, Stage
from tests.helix.local_fleet import answer, answer_of, balanced, experiment, local, plan, settled

PROMPTS = [[5, 9, 200, 31, 7], [1] * 20, [90, 3], list(range(40, 83)), [17], [8, 8, 250]]
PLACEMENTS = [
    (((0, 6), (0, 6), (0, 6), (0, 6)), False),
    (((0, 3), (3, 6), (0, 3), (3, 6)), False),
    (((0, 2), (2, 3), (3, 5), (5, 6)), False),
    (((0, 4), (2, 6), (1, 5), (4, 6)), True),
    (((0, 3), (0, 5), (3, 6), (2, 6)), True),
]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def alone() -> list[list[int]]:
    """Greedy answers of the whole model in one piece."""
    asked = experiment()
    assert asked.model.shape is not None
    config = config_of_shape(asked.model.shape, 6, asked.serve.vocabulary, asked.serve.longest)
    stage, answers = Stage(config, Holding(0, 6, 60_000)), list[list[int]]()
    for number, prompt in enumerate(PROMPTS):
        ids = list(prompt)
        for step in range(12):
            begin = 0 if step == 0 else len(ids) - 1
            item = Item(Key(number, 0), range(6), begin, len(ids) - begin, prompt=step == 0)
            stage.admit(item)
            stage.embed(item, ids[begin:])
            stage.begin(item.key, Sampling(), len(prompt), [])
            for layer in range(6):
                stage.layer(layer, [item])
            ids += [one.token for one in stage.tokens([item])]
        answers.append(ids[len(prompt) :])
    assert len({tuple(answer) for answer in answers}) == len(PROMPTS)
    assert len(set(answers[0])) > 3
    return answers


@pytest.mark.parametrize(("runs", "partial"), PLACEMENTS)
@pytest.mark.parametrize("scheduler", ["maxflow", "swarm", "random"])
def test_every_placement_gives_the_same_greedy_tokens(alone, runs, partial, scheduler):
    asked = replace(experiment(), workload=WorkloadSettings(scheduler=scheduler))

    async def main() -> None:
        async with local(asked, plan(asked, runs, partial)) as serving:
            answers = await asyncio.gather(*(answer(serving, prompt) for prompt in PROMPTS))
            assert list(answers) == alone
            assert all(f.blocks_used == f.requests == 0 for f in await settled(serving))
            assert serving.head.books.served == serving.head.books.sent == len(PROMPTS)

    asyncio.run(main())


def test_played_links_and_machines_change_times_not_tokens(alone):
    asked = experiment(play=True)

    async def main() -> None:
        async with local(asked, plan(asked, PLACEMENTS[1][0])) as serving:
            answers = await asyncio.gather(*(answer(serving, prompt) for prompt in PROMPTS))
            assert list(answers) == alone

    asyncio.run(main())


def test_a_lost_machine_ends_no_request(alone):
    asked = experiment()

    async def main() -> None:
        async with local(asked, plan(asked, PLACEMENTS[1][0])) as serving:
            asking = [asyncio.ensure_future(answer(serving, p)) for p in PROMPTS * 3]
            while serving.head.books.tokens < 20:
                await asyncio.sleep(0.001)
            serving.fleet.kill(1)
            assert await asyncio.gather(*asking) == alone * 3
            assert serving.head.books.again > 0
            assert serving.gone == {1}
            assert serving.replans == 1
            assert balanced(serving)
            assert serving.head.books.served == len(PROMPTS) * 3
            # The flow now passes the machines that are left only.
            assert all(f.blocks_used == 0 for f in await settled(serving))
            assert await asyncio.gather(*(answer(serving, p) for p in PROMPTS)) == alone

    asyncio.run(main())


def test_machines_lost_again_and_again_cost_no_request(alone):
    asked = experiment(restart=True, patience_s=30.0)

    async def main() -> None:
        async with local(asked, plan(asked, PLACEMENTS[1][0])) as serving:
            over = asyncio.Event()

            async def client(number: int) -> None:
                while not over.is_set():
                    assert await answer(serving, PROMPTS[number]) == alone[number]

            clients = [asyncio.ensure_future(client(i)) for i in range(len(PROMPTS))]
            for machine in (0, 3, 3, 1, 0, 0):
                before = serving.head.books.served
                while serving.head.books.served < before + 4:
                    await asyncio.sleep(0.01)
                if machine in serving.fleet.workers:
                    serving.fleet.kill(machine)
            while serving.gone:
                await asyncio.sleep(0.05)
            over.set()
            await asyncio.gather(*clients)
            assert serving.head.books.sent == serving.head.books.served
            assert serving.head.books.again > 0
            assert all(f.blocks_used == 0 for f in await settled(serving))

    asyncio.run(main())


def test_layers_move_when_nobody_else_holds_them_and_come_back(alone):
    asked = experiment(restart=True, patience_s=60.0)

    async def main() -> None:
        async with local(asked, plan(asked, PLACEMENTS[2][0])) as serving:
            asking = [asyncio.ensure_future(answer(serving, p)) for p in PROMPTS]
            while serving.head.books.tokens < 10:
                await asyncio.sleep(0.001)
            serving.fleet.kill(2)
            assert await asyncio.gather(*asking) == alone
            for _ in range(1200):  # a minute: planning may compile its kernels first
                if not serving.gone and serving.services == serving.deployment.plan.services:
                    break
                await asyncio.sleep(0.05)
            assert serving.services == serving.deployment.plan.services
            assert serving.replans == 2
            assert await asyncio.gather(*(answer(serving, p) for p in PROMPTS)) == alone
            assert all(f.blocks_used == 0 for f in await settled(serving))

    asyncio.run(main())


def test_requests_fail_clearly_when_no_machine_is_left():
    asked = experiment(machines=2, patience_s=1.0)

    async def main() -> None:
        async with local(asked, plan(asked, ((0, 3), (3, 6)))) as serving:
            serving.deployment.question.profiles["m"] = _of_few_layers(
                serving.deployment.question.profiles["m"]
            )
            running = serving.head.submit(Ask(PROMPTS[0], 2000))
            serving.fleet.kill(0)
            with pytest.raises(NotNow, match="no machines hold all layers"):
                await answer_of(running)
            assert serving.head.books.failed == 1
            assert balanced(serving)

    asyncio.run(main())


def _of_few_layers(profile):
    return replace(profile, limits=profile.limits[:3])


def test_a_full_cache_delays_requests_but_loses_none(alone):
    asked = experiment(machines=2, answer_part=0.001, high_water=1.0, most_waiting=100)
    made = plan(asked, ((0, 3), (3, 6)))
    small = {"0": 16 * 3 * 6, "1": 16 * 3 * 6}  # six blocks a layer: 96 tokens
    one = replace(made.services[0], kv_entries=small)
    made = replace(made, services=(one,))

    async def main() -> None:
        async with local(asked, made) as serving:
            asking = [asyncio.ensure_future(answer(serving, p)) for p in PROMPTS * 4]
            assert await asyncio.gather(*asking) == alone * 4
            assert all(f.blocks_used == 0 for f in await settled(serving))
            with pytest.raises(NotNow, match="96 that KV caches have room for") as refused:
                serving.head.submit(Ask([1] * 90, 10))
            assert refused.value.status == 400
            assert serving.head.books.rejected == 1

    asyncio.run(main())


def test_too_many_waiting_are_refused_and_cancelled_ones_leave_nothing():
    asked = experiment(machines=1, most_waiting=2)

    async def main() -> None:
        async with local(asked, plan(asked, ((0, 6),))) as serving:
            head, lane = serving.head, serving.head.lanes[0]
            lane.kv.free = [0] * len(lane.kv.free)
            waiting = [head.submit(Ask([1], 5)) for _ in range(2)]
            with pytest.raises(NotNow, match="2 requests are waiting") as refused:
                head.submit(Ask([1], 5))
            assert refused.value.status == 429
            with pytest.raises(NotNow, match="exceed the model's"):
                head.submit(Ask([1] * 4000, 100))
            for one in waiting:
                head.cancel(one)
            lane.kv.free = [h.kv_entries for h in lane.kv.holdings]
            running = head.submit(Ask([1], 4000 - 10))
            while not running.tokens:
                await asyncio.sleep(0.005)
            head.cancel(running)
            books = head.books
            assert (books.sent, books.rejected, books.cancelled) == (5, 2, 3)
            assert balanced(serving)
            assert all(f.blocks_used == 0 for f in await settled(serving))

    asyncio.run(main())


def test_a_prompt_longer_than_any_batch_is_served_and_served_again():
    asked = experiment()

    async def main() -> None:
        async with local(asked, plan(asked, PLACEMENTS[1][0])) as serving:
            long = [number % 250 for number in range(2500)]
            expected = await answer(serving, long, 8)
            asking = asyncio.ensure_future(answer(serving, long, 8))
            while serving.head.books.tokens < 10:
                await asyncio.sleep(0.001)
            serving.fleet.kill(1)
            assert await asking == expected

    asyncio.run(main())


def test_a_plan_for_other_machines_is_refused():
    asked = experiment(machines=2)
    made = plan(asked, ((0, 3), (3, 6)))
    with pytest.raises(InputError, match="other machines"):
        Deployment(experiment(machines=3), made, 0)
