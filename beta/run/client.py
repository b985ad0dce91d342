"""An open-loop load client: every request is sent at its time, whatever became of those before."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import aiohttp
import msgspec
import numpy as np

from beta.inputs.arrays import Bools, Floats, Ints
from beta.inputs.workload import Workload
from common.errors import InputError

UNANSWERED = 0
"""Status of a request that the connection failed for."""
LEAD_S = 1.0
"""From the call to time 0 of the workload."""
GRACE_S = 60.0
"""Beyond its limit until the client gives an answer up; a late one is told as late."""


class Target(NamedTuple):
    """A model as the client sees it."""

    name: str
    slo_s: float
    """Infinite: no target."""
    tokens: Sequence[int]


class Sent(NamedTuple):
    """What became of each request, in order of arrival."""

    finish: Floats
    """Seconds on the workload's clock."""
    status: Ints
    """Of HTTP; UNANSWERED where there was no answer."""
    refused: Bools
    """Not admitted, as the answer says; other errors are failures."""
    good: Bools
    """Served within the target, counted from when the request was due."""
    lag_s: Floats
    """How much later than due it was sent: the client's own fault."""


class Counts(NamedTuple):
    """The client's books."""

    sent: int
    served: int
    rejected: int
    failed: int
    unanswered: int


def counts_of(sent: Sent) -> Counts:
    """Count what the client saw."""
    status = sent.status
    served, refused = int((status == 200).sum()), int(sent.refused.sum())
    lost = int((status == UNANSWERED).sum())
    return Counts(len(status), served, refused, len(status) - served - refused - lost, lost)


async def put_load(
    url: str,
    workload: Workload,
    targets: Sequence[Target],
    *,
    timeout_s: float = 60.0,
    key: str = "",
    tick: Callable[[float], Awaitable[None]] | None = None,
) -> Sent:
    """Send a workload's requests, with the service's key, and return what became of them.

    `tick(seconds)` is started with the workload's clock, about once a second, beside it.
    """
    n = len(workload)
    no, never = np.zeros(n, np.bool_), np.zeros(n, np.int64) + UNANSWERED
    sent = Sent(np.empty(n), never, no.copy(), no.copy(), np.zeros(n))
    bodies = [msgspec.json.encode(_body(target)) for target in targets]
    limit = aiohttp.ClientTimeout(total=None)
    connector = aiohttp.TCPConnector(limit=0)
    begin = time.monotonic() + LEAD_S

    async def one(i: int, session: aiohttp.ClientSession) -> None:
        target = targets[workload.model[i]]
        due = begin + workload.arrival[i]
        sent.lag_s[i] = time.monotonic() - due
        patience = (timeout_s if np.isinf(target.slo_s) else target.slo_s) + GRACE_S
        path = f"{url}/v1/models/{target.name}/classify"
        try:
            async with asyncio.timeout(patience):
                async with session.post(path, data=bodies[workload.model[i]]) as answer:
                    body = await answer.read()
                    sent.status[i] = answer.status
                    sent.refused[i] = answer.status != 200 and _refused(body)
        except (aiohttp.ClientError, TimeoutError):
            sent.status[i] = UNANSWERED
        sent.finish[i] = time.monotonic() - begin
        latency = sent.finish[i] - workload.arrival[i]
        sent.good[i] = sent.status[i] == 200 and latency <= target.slo_s

    headers = headers_of(key)
    async with aiohttp.ClientSession(
        connector=connector, timeout=limit, headers=headers
    ) as session:
        ticking = asyncio.create_task(_tick(tick, begin)) if tick else None
        tasks = list[asyncio.Task[None]]()
        for i in range(n):
            await asyncio.sleep(max(begin + workload.arrival[i] - time.monotonic(), 0))
            tasks.append(asyncio.create_task(one(i, session)))
        await asyncio.gather(*tasks)
        if ticking:
            ticking.cancel()
    return sent


def _refused(body: bytes) -> bool:
    try:
        return bool(msgspec.json.decode(body).get("rejected"))
    except (msgspec.DecodeError, AttributeError):
        return False


async def _tick(tick: Callable[[float], Awaitable[None]], begin: float) -> None:
    while True:
        await asyncio.sleep(1.0)
        await tick(time.monotonic() - begin)


def _body(target: Target) -> dict[str, object]:
    """Return the request with its target, or without: then the service's own holds."""
    body: dict[str, object] = {"tokens": list(target.tokens)}
    return body if np.isinf(target.slo_s) else {**body, "slo_s": target.slo_s}


def headers_of(key: str) -> dict[str, str]:
    """Return what says the service's key; nothing where it has none."""
    return {"Authorization": f"Bearer {key}"} if key else {}


async def state_of(url: str, key: str = "") -> dict[str, object]:
    """Return the service's books and groups. Raises InputError."""
    async with aiohttp.ClientSession(headers=headers_of(key)) as session:
        try:
            async with session.get(f"{url}/state") as answer:
                if answer.status == 401:
                    raise InputError(f"{url} asks for a key; say by serve.api_key where it is")
                return msgspec.json.decode(await answer.read())
        except (aiohttp.ClientError, msgspec.DecodeError) as error:
            raise InputError(f"{url}: no service of ours answers: {error}") from error
