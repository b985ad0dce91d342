"""What became of every request, counted once: received = served + rejected + failed + in flight."""

from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

Outcome = Literal["served", "rejected", "failed"]
OUTCOMES: tuple[Outcome, ...] = ("served", "rejected", "failed")
BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Answer(NamedTuple):
    """The answer to a request that was understood."""

    outcome: Outcome
    status: int
    """Of HTTP."""
    reason: str = ""
    logits: tuple[float, ...] = ()
    group: int = -1
    tries: int = 1


class Totals(NamedTuple):
    """The books; `retried` counts answers that needed more than one group."""

    received: int
    served: int
    rejected: int
    failed: int
    retried: int
    in_flight: int
    invalid: int
    """Not understood, answered with 4xx; not among the received."""
    rebuilt: int
    """Groups built anew."""

    @property
    def balanced(self) -> bool:
        """Whether nothing is lost, and nothing answered that was not received."""
        answered = self.served + self.rejected + self.failed
        return self.received == answered + self.in_flight and self.in_flight >= 0


class Books:
    """Counts as Prometheus metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.count = dict.fromkeys(Totals._fields, 0)
        self.answers = Counter(
            "beta_requests", "Requests answered", ("model", "outcome"), registry=self.registry
        )
        self.received = Counter("beta_received", "Requests understood", registry=self.registry)
        self.invalid = Counter("beta_invalid", "Requests answered 4xx", registry=self.registry)
        self.rebuilt = Counter("beta_rebuilt_groups", "Groups built anew", registry=self.registry)
        self.retried = Counter(
            "beta_retried", "Requests answered by another group", registry=self.registry
        )
        self.in_flight = Gauge("beta_in_flight", "Requests in flight", registry=self.registry)
        self.groups_up = Gauge("beta_groups_up", "Groups that serve", registry=self.registry)
        self.latency = Histogram(
            "beta_latency_seconds",
            "Of requests served, by model",
            ("model",),
            registry=self.registry,
            buckets=BUCKETS_S,
        )

    def receive(self) -> None:
        """Count a request that was understood."""
        self.count["received"] += 1
        self.count["in_flight"] += 1
        self.received.inc()
        self.in_flight.inc()

    def answer(self, model: str, answer: Answer, seconds: float) -> None:
        """Count its answer."""
        self.count["in_flight"] -= 1
        self.count[answer.outcome] += 1
        self.in_flight.dec()
        self.answers.labels(model, answer.outcome).inc()
        if answer.outcome == "served":
            self.latency.labels(model).observe(seconds)
        if answer.tries > 1:
            self.count["retried"] += 1
            self.retried.inc()

    def refuse(self) -> None:
        """Count a request that was not understood."""
        self.count["invalid"] += 1
        self.invalid.inc()

    def rebuild(self) -> None:
        """Count a group built anew."""
        self.count["rebuilt"] += 1
        self.rebuilt.inc()

    def totals(self) -> Totals:
        """Return the books."""
        return Totals(**self.count)

    def page(self) -> bytes:
        """Return all metrics as Prometheus reads them."""
        return generate_latest(self.registry)
