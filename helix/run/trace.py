"""What happened when in a run, in the Chrome trace format: open it at https://ui.perfetto.dev.

Rows as in the simulator's trace (`simulate/trace.py`): process 0 holds the machines, a thread each,
with every batch; process 1 the links, with every pass. Process 2 holds the requests: each pass from
its sending to its return, so that one row is one request's life.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from helix.run.engine import BatchSpan
from helix.run.head import Running
from helix.run.messages import HEAD, Mark
from helix.run.serving import Serving
from helix.simulate.trace import US_PER_S, write_trace

MACHINES, LINKS, REQUESTS = 0, 1, 2
PROCESSES = {MACHINES: "machines", LINKS: "links", REQUESTS: "requests"}

Event = dict[str, object]
Back = tuple[float, list[Mark]]
"""When a pass was back, and its marks; seconds since the epoch."""


async def write_run(path: Path, serving: Serving) -> None:
    """Write the trace of a service that was told to keep one."""
    spans = await serving.fleet.spans()
    held = {machine: (part.first, part.end) for machine, part in serving.parts.items()}
    events = trace_events(spans, serving.head.traced, held)
    notes = [(when, what) for when, what in serving.events]
    begin = _begin(spans, serving.head.traced)
    events += [_instant(what, when - begin) for when, what in notes]
    write_trace(path, events)


def trace_events(
    spans: Sequence[BatchSpan],
    requests: Iterable[Running],
    held: dict[int, tuple[int, int]],
) -> list[Event]:
    """Return batches, passes over links and requests as events, from time 0 on."""
    requests = list(requests)
    begin = _begin(spans, requests)
    events = [_name("process_name", pid, 0, name) for pid, name in PROCESSES.items()]
    for machine, (first, end) in sorted(held.items()):
        title = f"machine {machine}: layers {first}-{end - 1}"
        events.append(_name("thread_name", MACHINES, machine, title))
    for span in spans:
        sizes = {"prompt tokens": span.prompt_tokens, "decodes": span.decodes}
        when = (span.begin - begin, span.seconds)
        events.append(_span(f"layer {span.layer}", MACHINES, span.machine, when, sizes))
    links = dict[tuple[int, int], int]()
    for request in requests:
        for number, back in enumerate(request.marks):
            events += _pass(request, number, back, begin, links)
    for (tail, head), row in links.items():
        names = ["coordinator" if end == HEAD else str(end) for end in (tail, head)]
        events.append(_name("thread_name", LINKS, row, " to ".join(names)))
    return events


def _pass(
    request: Running, number: int, back: Back, begin: float, links: dict[tuple[int, int], int]
) -> list[Event]:
    when, marks = back
    events, tail = list[Event](), HEAD
    for mark in marks:
        row = links.setdefault((tail, mark.machine), len(links))
        took = (mark.sent - begin, mark.arrived - mark.sent)
        events.append(_span(f"request {request.number}", LINKS, row, took, {}))
        tail = mark.machine
    if marks:
        row = links.setdefault((tail, HEAD), len(links))
        took = (marks[-1].left - begin, when - marks[-1].left)
        events.append(_span(f"request {request.number}", LINKS, row, took, {}))
        name = "prompt" if number == 0 else f"token {number}"
        whole = (marks[0].sent - begin, when - marks[0].sent)
        way = {"machines": " ".join(str(mark.machine) for mark in marks)}
        events.append(_span(name, REQUESTS, request.number, whole, way))
    return events


def _begin(spans: Sequence[BatchSpan], requests: Iterable[Running]) -> float:
    sent = [marks[0].sent for r in requests for _, marks in r.marks if marks]
    return min([span.begin for span in spans] + sent, default=0.0)


def _span(
    name: str, pid: int, tid: int, when: tuple[float, float], args: Mapping[str, object]
) -> Event:
    begin, seconds = when
    return {
        "name": name,
        "cat": PROCESSES[pid],
        "ph": "X",
        "ts": begin * US_PER_S,
        "dur": max(0.0, seconds) * US_PER_S,
        "pid": pid,
        "tid": tid,
        "args": args,
    }


def _instant(name: str, when: float) -> Event:
    return {"name": name, "ph": "i", "s": "g", "ts": when * US_PER_S, "pid": MACHINES, "tid": 0}


def _name(what: str, pid: int, tid: int, name: str) -> Event:
    return {"name": what, "ph": "M", "pid": pid, "tid": tid, "args": {"name": name}}
