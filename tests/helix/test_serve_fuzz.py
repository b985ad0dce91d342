"""A hundred thousand odd bodies against the service as users start it, ordinary requests between.

FUZZ_BODIES takes another number.
"""

import asyncio
import os
import random
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from common.case import to_toml
from common.files import write_plan
from tests.helix.bodies import asked as odd
from tests.helix.local_fleet import experiment, plan
from tests.helix.test_run_cli import ASKED, END_S, get, post, started

BODIES = int(os.environ.get("FUZZ_BODIES", "100000"))
CLIENTS, EVERY = 16, 100
ANSWER_S = 60.0  # what takes longer hangs
ALLOWED = {200, 400, 404, 413, 429, 503, 504}


async def client(url: str, number: int, expected: str, seen: Counter[int]) -> None:
    draw, limit = random.Random(number), aiohttp.ClientTimeout(total=ANSWER_S)
    async with aiohttp.ClientSession(url, timeout=limit) as session:
        for i in range(BODIES // CLIENTS):
            path, sent = odd(draw)
            async with session.post(path, data=sent) as response:
                said = await response.read()
            seen[response.status] += 1
            assert response.status in ALLOWED, (path, sent[:500], said)
            assert response.status == 200 or b'"error"' in said, (path, sent[:500], said)
            if i % EVERY == 0:
                async with session.post("/v1/completions", json=ASKED) as response:
                    found: dict[str, Any] = await response.json()
                assert found["choices"][0]["text"] == expected, found


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_odd_bodies_end_no_worker_no_thread_and_no_other_request(tmp_path: Path):
    asked = experiment(machines=4, restart=True, patience_s=60.0, longest=512)
    (tmp_path / "my.toml").write_text(to_toml(asked))
    write_plan(plan(asked, ((0, 3), (3, 6), (0, 3), (3, 6))), tmp_path / "plan.json")
    process = started(tmp_path, "my.toml", "--plan", "plan.json")
    assert process.stdout is not None
    url, seen = process.stdout.readline().split()[2], Counter[int]()
    try:
        expected, before = post(url), get(f"{url}/health")

        async def all_clients() -> None:
            await asyncio.gather(*(client(url, i, expected, seen) for i in range(CLIENTS)))

        asyncio.run(all_clients())
        assert post(url) == expected
        health = get(f"{url}/health")
    finally:
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=END_S)
    print(out, seen)
    assert health["machines"] == before["machines"]  # the same processes
    assert (health["status"], health["faults"], health["lost"]) == ("ok", {}, [])
    assert health["books"]["failed"] == 0
    assert min(seen[200], seen[400]) > BODIES / 20
    assert process.returncode == 0
