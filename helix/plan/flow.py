"""A flow over a placement's links, as a value."""

import msgspec


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """A maximum flow: its value and, by link, flow and capacity; tokens per second."""

    value: float
    links: tuple[float, ...]
    capacities: tuple[float, ...]
