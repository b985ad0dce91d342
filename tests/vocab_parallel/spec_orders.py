"""The 1F1B orders as the artifact's own program runs, written down phase by phase.

A second, literal form of what `vocab_parallel.plan.sharded` and `interlaced` generate; it holds
where the artifact itself runs: m > p + 1 (vocab), even p and m > 3p/2 (interlaced).
"""

States = list[tuple[bool, int]]


class Rank:
    """One rank's list while the phases write it."""

    def __init__(self, batches: int) -> None:
        self.m = batches
        self.out: list[str] = []
        self.slots = self.inputs = self.gradients = 0

    def run(self, name: str) -> None:
        self.out.append(name)

    def input(self) -> None:
        if self.inputs < self.m:
            self.run(f"IF{self.inputs}")
            self.inputs += 1

    def gradient(self) -> None:
        if self.gradients < self.m:
            self.run(f"IB{self.gradients}")
            self.gradients += 1

    def output(self) -> None:
        if self.slots >= 1:
            self.run(f"T{self.slots - 1}")
        if self.slots < self.m:
            self.run(f"S{self.slots}")
        self.slots += 1


def states(p: int, f: float, b: float) -> States:
    """(S/T after B, slots before the first B), first rank first."""
    order = [(True, 0.0)]
    while len(order) < p:
        offset = order[-1][1]
        if offset - f >= -b:
            order.append((True, offset - f))
        else:
            order += [(False, offset), (True, offset + b - f)]
    order = order[:p][::-1]
    slots = [0] * p
    for r in reversed(range(p - 1)):
        same = not order[r + 1][0] and order[r][0]
        slots[r] = slots[r + 1] + (0 if same else 1)
    return [(state, count) for (state, _), count in zip(order, slots, strict=True)]


def vocab(p: int, m: int, *, barriers: int, f: float = 1, b: float = 2) -> list[str]:
    """The programs of all ranks as text."""
    every = states(p, f, b)
    return [" ".join(_vocab(r, p, m, barriers - 1, every)) for r in range(p)]


def _vocab(r: int, p: int, m: int, a: int, every: States) -> list[str]:  # noqa: C901  the phases in one piece
    rank, w, w0 = Rank(m), min(p - r, m), min(p, m)
    after_b, slots = every[r]
    first = every[0][1]
    for _ in range(w0 - w + 1):
        rank.input()
    for i in range(w):
        rank.input()
        rank.run(f"F{i}")
    rank.output()
    if a:
        rank.input()
    rank.run(f"F{w}")
    if a:
        rank.output()
        rank.run(f"F{w + 1}")
    for i in range(slots):
        rank.output()
        if i + 1 >= first:
            rank.input()

    def slot(*, more_inputs: bool) -> None:
        k = rank.slots
        if k <= m - 1 + a:
            rank.output()
        if more_inputs and k >= first + a:
            rank.input()
        if k >= first + 2 + a:
            rank.gradient()

    steady = m - w - 1 - a
    for i in range(steady):
        rank.run(f"B{i}")
        if after_b:
            slot(more_inputs=True)
        rank.run(f"F{i + w + 1 + a}")
        if not after_b:
            slot(more_inputs=True)
    for i in range(steady, m):
        rank.run(f"B{i}")
        slot(more_inputs=False)
    while rank.gradients < m:
        rank.gradient()
    if not a:
        rank.output()
    return rank.out


def interlaced(p: int, m: int) -> list[str]:
    """The programs of all ranks as text."""
    return [" ".join(_interlaced(r, p, m)) for r in range(p)]


def _interlaced(r: int, p: int, m: int) -> list[str]:  # noqa: C901  the phases in one piece
    rank = Rank(m)
    w, c = 3 * p // 2 - r, p - r
    n = max(0, w - c - (p - r - 1) // 2)
    forward_first = r % 2 == p % 2

    def meet(k: int, *, embed: bool) -> None:
        rank.out += [f"S{k}", f"T{k}"]
        if embed and k >= p - 1:
            rank.input()
        if embed and k >= p + 1:
            rank.gradient()

    backward = iter(range(m))
    for _ in range(3 * p // 2 - w + 1):
        rank.input()
    for i in range(w):
        rank.input()
        rank.run(f"F{i}")
    for i in range(c):
        rank.out += [f"S{i}", f"T{i}"]
        if i >= p - 1:
            rank.input()
    for i in range(n):
        rank.run(f"B{next(backward)}")
        meet(i + c, embed=True)
    for i in range(m - w):
        pair = [f"F{i + w}", f"B{next(backward)}"]
        rank.out += pair if forward_first else pair[::-1]
        meet(i + c + n, embed=True)
    for i in range(w - c - n):
        rank.run(f"B{next(backward)}")
        rank.out += [f"S{i + c + n + m - w}", f"T{i + c + n + m - w}"]
        rank.gradient()
    for _ in range(c):
        rank.run(f"B{next(backward)}")
        rank.gradient()
    while rank.gradients < m:
        rank.gradient()
    return rank.out
