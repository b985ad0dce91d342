"""Vocabulary layers cut over all ranks: the passes IF, S, T and IB and their collectives.

When a broadcast is posted is in `vocab_parallel.plan.collectives`. Collectives are asynchronous;
only S waits for the others' statistics (on CUDA on a stream of its own). Shape suffixes as in
`run/ends`.
"""

from collections import deque
from collections.abc import Callable, Sequence

import torch.distributed as dist
from torch import Tensor

from common.clock import Clock
from vocab_parallel.plan.collectives import VOCABULARY, Broadcast, broadcasts
from vocab_parallel.plan.passes import Pass, Schedule
from vocab_parallel.run import output
from vocab_parallel.run.ends import Batch, Ends, Holdings
from vocab_parallel.run.input import look_up
from vocab_parallel.run.links import Arriving, Groups
from vocab_parallel.run.output import Labels, Rules, Shard
from vocab_parallel.run.side import side_of
from vocab_parallel.run.tensor import Team


class ShardedEnds(Ends):
    """The vocabulary passes of one rank."""

    def __init__(
        self, schedule: Schedule, groups: Groups, held: Holdings, rules: Rules, clock: Clock
    ) -> None:
        super().__init__(schedule, groups, held, rules, clock)
        self.side = side_of(self.device)
        runs = {
            "IF": self._embed,
            "S": self._output,
            "T": self._output_gradient,
            "IB": self._embed_gradient,
        }
        self.passes = {kind: self._counted(runs[kind]) for kind in VOCABULARY}

    def begin(self, batches: Sequence[Batch], like: Tensor) -> None:
        """Begin an iteration with nothing of the one before."""
        super().begin(batches, like)
        self.due: deque[Broadcast] = deque(broadcasts(self.schedule))
        self.over = 0
        self.embedded: dict[int, Arriving] = {}
        self.maxima: dict[int, tuple[Tensor, Arriving]] = {}
        self.gradient: dict[int, Arriving] = {}
        self.input_gradient: dict[int, Arriving] = {}
        self.sources: dict[tuple[str, int], Tensor] = {}
        self.sending: deque[Arriving] = deque()

    def before_pass(self) -> None:
        """Post every broadcast whose turn has come; on its root that needs the source."""
        while self.due and self.due[0].after <= self.over:
            coming = self.due[0]
            source = self.sources.pop((coming.what, coming.batch), None)
            if coming.root == self.rank and source is None:
                return
            self.due.popleft()
            if self.groups.team.place:
                source = None  # the first of the root's team sends, to the others of it too
            tensor = self.groups.blank(self.like) if source is None else source.contiguous()
            first = self.groups.world_rank(coming.root, 0)
            work = dist.broadcast(tensor, first, group=self.groups.vocabulary, async_op=True)
            arriving = Arriving(tensor, work)
            kept = self.hidden if coming.what == "hidden" else self.input_gradient
            kept[coming.batch] = arriving

    def end(self) -> None:
        """Wait for what is still under way."""
        for left in self.sending:
            left.wait()
        self.side.join()

    def first_input(self, batch: int) -> Tensor:
        """Return the embeddings, of which every rank has given its tokens'."""
        return self.embedded.pop(batch).wait().view(self.shape)

    def take_hidden(self, item: Pass, x_NTH: Tensor) -> None:
        """Keep X for its broadcast."""
        self.sources["hidden", item.batch] = x_NTH

    def last_gradient(self, item: Pass) -> Tensor:
        """Return dX, of which every rank has given its part."""
        return self.gradient.pop(item.batch).wait().view(self.shape)

    def take_input_gradient(self, item: Pass, grad_NTH: Tensor) -> None:
        """Keep the input's gradient for its broadcast."""
        self.sources["input gradient", item.batch] = grad_NTH

    def _counted(self, run: Callable[[Pass], None]) -> Callable[[Pass], None]:
        def counted(item: Pass) -> None:
            run(item)
            self.over += 1

        return counted

    def _embed(self, item: Pass) -> None:
        assert self.held.inputs is not None
        with self.span(item):
            x_MH = look_up(self.batches[item.batch].tokens.flatten(), self.held.inputs[0])
        total = self._all_reduce(x_MH)
        if self.rank == 0:
            self.embedded[item.batch] = total
        else:
            self._keep(total)

    def _output(self, item: Pass) -> None:
        batch = item.batch
        shard, labels = self.shard(batch)
        if self.schedule.barriers == 3:
            self._output_in_parts(item, shard, labels)
            return
        x_MH = self.hidden[batch].wait().flatten(0, 1)
        with self.span(item):
            self.passed[batch] = output.s_pass(x_MH, shard, labels, self.rules)
        self._statistics(item, shard, labels)

    def _output_in_parts(self, item: Pass, shard: Shard, labels: Labels) -> None:
        batch = item.batch
        if item.chunk == 0:
            x_MH = self.hidden[batch].wait().flatten(0, 1)
            with self.span(item):
                logits, maximum = output.s_first(x_MH, shard, self.rules.softcap)
            self.maxima[batch] = logits, self._all_reduce(maximum, dist.ReduceOp.MAX)
            return
        logits, arriving = self.maxima.pop(batch)
        maximum = arriving.wait()
        with self.span(item):
            self.passed[batch] = output.s_second(logits, maximum, shard, labels, self.rules)
        self._statistics(item, shard, labels)

    def _statistics(self, item: Pass, shard: Shard, labels: Labels) -> None:
        """Gather every rank's maxima and sums (barrier C1); Algorithm 2 also reduces dX here."""
        batch, passed = item.batch, self.passed[item.batch]
        early = self.trains and self.rules.algorithm != "vocab-1"
        with self.side.entered(passed.local, passed.product, passed.target, *labels):
            every = Team(self.groups.vocabulary, self.groups.shard, self.groups.shards)
            gathered = self.gather(passed, every)

            def combine() -> list[Tensor]:
                gathered_PKN = gathered.wait()
                with self.span(item):
                    found = output.combine(gathered_PKN, every.place, shard, labels, self.rules)
                    self.count(found, labels)
                    if early:
                        assert passed.product is not None
                        gradient_MH = output.early_gradient(passed, found, labels, self.rules)
                        passed.product.copy_(gradient_MH)  # of no use but for this
                if self.trains:
                    self.found[batch] = found
                return [*found]

            self.side.do(combine)
            if early:
                assert passed.product is not None
                self._reduce_gradient(batch, passed.product)
        if self.trains:
            self.passed[batch] = passed._replace(product=None, target=None)
        else:
            del self.passed[batch], self.hidden[batch]

    def _output_gradient(self, item: Pass) -> None:
        self.side.join()
        with self.span(item):
            late_MH = self.late_gradient(item.batch)
        if late_MH is not None:
            self._reduce_gradient(item.batch, late_MH)

    def _embed_gradient(self, item: Pass) -> None:
        grad = self.input_gradient.pop(item.batch).wait()
        with self.span(item):
            self.add_input_gradient(item.batch, grad)

    def _keep(self, total: Arriving) -> None:
        """Hold what only another rank reads until it has left, and no longer."""
        self.sending.append(total)
        while self.sending and self.sending[0].is_over():
            self.sending.popleft()

    def _all_reduce(
        self, tensor: Tensor, op: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM
    ) -> Arriving:
        group = self.groups.vocabulary
        return Arriving(tensor, dist.all_reduce(tensor, op, group=group, async_op=True))

    def _reduce_gradient(self, batch: int, part_MH: Tensor) -> None:
        """Sum dX over ranks; only the last stage's rank reads it.

        All-reduce, as the artifact does: a reduce would load the ranks of a ring unequally.
        """
        total = self._all_reduce(part_MH)
        if self.rank == self.schedule.place(self.schedule.stages - 1)[0]:
            self.gradient[batch] = total
        else:
            self._keep(total)
