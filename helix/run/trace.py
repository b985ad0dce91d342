"""What happened when in a run, in the Chrome trace format: open it at https://ui.perfetto.dev.

Rows as in the simulator's trace (`simulate/trace.py`): process 0 holds the machines, a thread each,
with every batch; process 1 the links, with every pass. Process 2 holds the requests: each pass from
its sending to its return, so that one row is one request's life.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from common.trace import Event, group, instant, row, span, write_trace
from helix.run.engine import BatchSpan
from helix.run.messages import HEAD, Mark
from helix.run.request import Running
from helix.run.serving import Serving

MACHINES, LINKS, REQUESTS = 0, 1, 2
PROCESSES = {MACHINES: "machines", LINKS: "links", REQUESTS: "requests"}

Back = tuple[float, list[Mark]]
"""When a pass was back, and its marks; seconds since the epoch."""


async def write_run(path: Path, serving: Serving) -> None:
    """Write the trace of a service that was told to keep one."""
    spans = await serving.fleet.spans()
    held = {machine: (part.first, part.end) for machine, part in serving.parts.items()}
    events = trace_events(spans, serving.head.traced, held)
    notes = [(when, what) for when, what in serving.events]
    begin = _begin(spans, serving.head.traced)
    events += [instant(what, MACHINES, 0, when - begin) for when, what in notes]
    write_trace(path, events)


def trace_events(
    spans: Sequence[BatchSpan],
    requests: Iterable[Running],
    held: dict[int, tuple[int, int]],
) -> list[Event]:
    """Return batches, passes over links and requests as events, from time 0 on."""
    requests = list(requests)
    begin = _begin(spans, requests)
    events = [group(name, pid) for pid, name in PROCESSES.items()]
    for machine, (first, end) in sorted(held.items()):
        events.append(row(f"machine {machine}: layers {first}-{end - 1}", MACHINES, machine))
    for batch in spans:
        sizes = {"prompt tokens": batch.prompt_tokens, "decodes": batch.decodes}
        when = (batch.begin - begin, batch.seconds)
        events.append(_span(f"layer {batch.layer}", MACHINES, batch.machine, when, sizes))
    links = dict[tuple[int, int], int]()
    for request in requests:
        for number, back in enumerate(request.marks):
            events += _pass(request, number, back, begin, links)
    for (tail, head), number in links.items():
        names = ["coordinator" if end == HEAD else str(end) for end in (tail, head)]
        events.append(row(" to ".join(names), LINKS, number))
    return events


def _pass(
    request: Running, number: int, back: Back, begin: float, links: dict[tuple[int, int], int]
) -> list[Event]:
    when, marks = back
    events, tail = list[Event](), HEAD
    for mark in marks:
        there = links.setdefault((tail, mark.machine), len(links))
        took = (mark.sent - begin, mark.arrived - mark.sent)
        events.append(_span(f"request {request.number}", LINKS, there, took))
        tail = mark.machine
    if marks:
        there = links.setdefault((tail, HEAD), len(links))
        took = (marks[-1].left - begin, when - marks[-1].left)
        events.append(_span(f"request {request.number}", LINKS, there, took))
        name = "prompt" if number == 0 else f"token {number}"
        whole = (marks[0].sent - begin, when - marks[0].sent)
        way = {"machines": " ".join(str(mark.machine) for mark in marks)}
        events.append(_span(name, REQUESTS, request.number, whole, way))
    return events


def _begin(spans: Sequence[BatchSpan], requests: Iterable[Running]) -> float:
    sent = [marks[0].sent for r in requests for _, marks in r.marks if marks]
    return min([batch.begin for batch in spans] + sent, default=0.0)


def _span(
    name: str, pid: int, tid: int, when: tuple[float, float], args: dict[str, Any] | None = None
) -> Event:
    return span(name, pid, tid, *when, kind=PROCESSES[pid], args=args)
