"""Bounds on the flow of any placement, from machine speeds alone."""

from collections.abc import Sequence

from helix.inputs.profile import Curve, Profile

ROUNDING = 1e-12  # below the bound both sides may be equal but for the order of their sums

Rates = Sequence[Sequence[float]]  # by machine, tokens per second for 1, 2, ... layers


def compute_sum_bound(rates: Rates, layers: int) -> float:
    """Return the original's bound: every machine's best layer rate, shared by all layers."""
    return sum(max(k * rate for k, rate in enumerate(own, 1)) for own in rates) / layers


def capped_compute_bound(rates: Rates, layers: int) -> float:
    """Return the largest flow F that the machines could compute if none passed more than F.

    Each token of flow takes `layers` layer passes, and a machine passes at most F tokens through
    its k layers: the sum of max k * min(rate, F) has to reach layers * F. Found by bisection.
    """

    def reached(flow: float) -> bool:
        work = sum(max(k * min(rate, flow) for k, rate in enumerate(own, 1)) for own in rates)
        return work >= layers * flow * (1 - ROUNDING)

    low, high = 0.0, compute_sum_bound(rates, layers)
    if reached(high):
        return high
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if reached(middle) else (low, middle)
    return high


def chain_value(rates: Rates, layers: int) -> float:
    """Return the best flow of one chain of machines without links; 0 if the model does not fit."""
    for flow in sorted({rate for own in rates for rate in own}, reverse=True):
        most = (
            max((k for k, rate in enumerate(own, 1) if rate >= flow), default=0) for own in rates
        )
        if sum(most) >= layers:
            return flow
    return 0.0


def decode_bound(
    profiles: Sequence[Profile], layers: int, mean_input: float, mean_output: float
) -> float:
    """Return a bound on the decode throughput in the long run, tokens/s, of one profile a machine.

    A request keeps a machine busy for its tokens' share of the best batches that the machine's
    limits allow, whatever else is on the way: links, full KV caches and bad luck only add to it.
    """
    rates = [_requests_per_s(one, layers, mean_input, mean_output) for one in profiles]
    return mean_output * capped_compute_bound(rates, layers)


def _requests_per_s(
    profile: Profile, layers: int, mean_input: float, mean_output: float
) -> list[float]:
    """Return the requests that a machine could pass each second with 1, 2, ... layers."""
    found = list[float]()
    for held, limits in enumerate(profile.limits[:layers], 1):
        prompt = _least_per_token(profile.prompt, limits.prompt_tokens)
        decode = _least_per_token(profile.decode, limits.decode_requests)
        found.append(1 / (held * (mean_input * prompt + mean_output * decode)))
    return found


def _least_per_token(curve: Curve, most: int) -> float:
    """Return the least seconds a token in batches of at most so many; curves are piecewise linear.

    Between two points a / n + b has its least at an end.
    """
    sizes = [n for n in curve.tokens if 0 < n < most] + [min(most, curve.tokens[-1])]
    return min(curve(n) / n for n in {1, *sizes})
