"""The service's figures for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from helix.run.request import Outcome, Running, Token
from helix.run.serving import Serving

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Counters and gauges of one service, in a registry of their own."""

    def __init__(self, serving: Serving) -> None:
        """Count from now on."""
        self._serving, self._registry = serving, CollectorRegistry()
        registry = self._registry
        self._ended = Counter(
            "helix_requests", "Requests by how they ended", ["outcome"], registry=registry
        )
        self._tokens = Counter("helix_tokens", "Tokens of answers", registry=registry)
        self._again = Gauge(
            "helix_attempts_again", "Attempts begun anew since the start", registry=registry
        )
        self._replans = Gauge("helix_replans", "Plans made anew since the start", registry=registry)
        self._running = Gauge("helix_requests_running", "Requests at work", registry=registry)
        self._waiting = Gauge("helix_requests_waiting", "Requests that wait", registry=registry)
        self._workers = Gauge("helix_machines", "Machines that hold layers", registry=registry)
        self._gone = Gauge("helix_machines_lost", "Machines that are lost", registry=registry)
        self._broken = Gauge("helix_links_lost", "Links that are lost", registry=registry)
        self._faults = Gauge(
            "helix_faults", "What died or erred and was mended since the start", ["part"],
            registry=registry,
        )  # fmt: skip
        self._used = Gauge(
            "helix_kv_blocks_used", "KV blocks in use", ["machine"], registry=registry
        )
        self._blocks = Gauge("helix_kv_blocks", "KV blocks", ["machine"], registry=registry)
        self._expected = Gauge(
            "helix_kv_expected", "Expected use of the fullest layer", ["service"], registry=registry
        )
        self._flow = Gauge(
            "helix_flow", "Planned tokens per second", ["service"], registry=registry
        )
        self._first = Histogram(
            "helix_first_token_seconds", "From a request to its first token", buckets=SECONDS,
            registry=registry,
        )  # fmt: skip
        self._next = Histogram(
            "helix_next_token_seconds", "Of each further token", buckets=SECONDS, registry=registry
        )
        for outcome in ("served", "rejected", "failed", "cancelled"):
            self._ended.labels(outcome)
        serving.head.on_token.append(self._token)
        serving.head.on_end.append(self._end)

    def _token(self, request: Running, token: Token) -> None:
        self._tokens.inc()
        if len(request.tokens) == 1:
            self._first.observe(token.back - request.came)
        else:
            self._next.observe(token.back - token.sent)

    def _end(self, _: Running, outcome: Outcome) -> None:
        self._ended.labels(outcome).inc()

    async def page(self) -> tuple[bytes, str]:
        """Return the text and its content type."""
        head = self._serving.head
        self._running.set(len(head.running))
        self._waiting.set(len(head.waiting))
        self._again.set(head.books.again)
        self._replans.set(self._serving.replans)
        self._workers.set(len(self._serving.fleet.workers))
        self._gone.set(len(self._serving.gone))
        self._broken.set(len(self._serving.broken))
        for part, count in self._serving.faults.items():
            self._faults.labels(part).set(count)
        for lane in head.lanes:
            self._expected.labels(lane.name).set(lane.kv.bottleneck())
        for service in self._serving.services:
            self._flow.labels(service.name).set(service.flow)
        for facts in await self._serving.fleet.facts():
            self._used.labels(str(facts.machine)).set(facts.blocks_used)
            self._blocks.labels(str(facts.machine)).set(facts.blocks)
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
