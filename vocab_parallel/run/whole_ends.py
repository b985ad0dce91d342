"""Whole vocabulary layers: input matrix in the first stage's passes, loss in the last stage's.

Where a team of ranks shares every position the matrices are cut over the team. Shape suffixes as in
`run/ends`.
"""

from torch import Tensor

from vocab_parallel.plan.passes import Pass
from vocab_parallel.run import output
from vocab_parallel.run.ends import Ends
from vocab_parallel.run.input import look_up
from vocab_parallel.run.links import Arriving


class WholeEnds(Ends):
    """There are no passes of the vocabulary layers alone."""

    def before_pass(self) -> None:
        """Post nothing: what the team sums is waited for at once."""

    def end(self) -> None:
        """Return: nothing is under way."""

    def first_input(self, batch: int) -> Tensor:
        """Return the embeddings, summed over the team."""
        assert self.held.inputs is not None
        x_MH = look_up(self.batches[batch].tokens.flatten(), self.held.inputs[0])
        return self.groups.team.sum(x_MH).view(self.shape)

    def take_hidden(self, item: Pass, x_NTH: Tensor) -> None:
        """Do S of the team's shards, and count the loss."""
        shard, labels = self.shard(item.batch)
        x_MH, team = x_NTH.flatten(0, 1), self.groups.team
        with self.span(item):
            passed = output.s_pass(x_MH, shard, labels, self.rules)
            gathered_PKN = self.gather(passed, team).wait()
            found = output.combine(gathered_PKN, team.place, shard, labels, self.rules)
            self.count(found, labels)
        if self.trains:
            self.hidden[item.batch] = Arriving(x_MH, None)
            self.passed[item.batch], self.found[item.batch] = passed, found

    def last_gradient(self, item: Pass) -> Tensor:
        """Do T, and return dX summed over the team."""
        with self.span(item):
            grad_MH = self.late_gradient(item.batch)
        assert grad_MH is not None
        return self.groups.team.sum(grad_MH).view(self.shape)

    def take_input_gradient(self, item: Pass, grad_NTH: Tensor) -> None:
        """Add the input matrix' gradient."""
        with self.span(item):
            self.add_input_gradient(item.batch, grad_NTH)
