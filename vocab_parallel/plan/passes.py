"""A pipeline schedule as data: per rank the list of passes it carries out, in order.

Vocabulary Parallelism §2.2, §4-5 (Yeung et al., MLSys 2025). The checker, the simulator and the
runtime all read this one value.
"""

from typing import Annotated, Literal

import msgspec

Kind = Literal["F", "B", "W", "S", "T", "IF", "IB"]
"""F, B: forward and backward of a stage's transformer layers. W: their weight gradients, where B
does not compute them. S, T: the two passes of the sharded output layer. IF, IB: forward and
backward of the sharded input layer."""


Positive = Annotated[int, msgspec.Meta(ge=1)]


class Pass(msgspec.Struct, frozen=True, gc=False):
    """One unit of work of one micro-batch.

    `chunk` numbers the stages that a rank holds, in the pipeline's order.
    The three-barrier output layer splits S: chunk 0 has the logits and their maximum, chunk 1 the
    exponentials and their sum.
    """

    kind: Kind
    batch: int
    chunk: int = 0


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """What every rank does in one iteration.

    `barriers` is 0 where the vocabulary layers belong to the first and last stage, else the number
    of collectives between the last stage's forward and backward pass (1, 2 or 3).
    `synchronous`: all ranks meet at S and do nothing else until T (interlaced). `layout` is the way
    of the chunks over the ranks: a line down and back up (V-Half, ZB-V), or a loop that begins anew
    at rank 0 (interleaved). `split_backward`: B leaves the weight gradients to a pass W.
    """

    method: str
    ranks: Positive
    batches: Positive
    chunks: Positive = 1
    layout: Literal["v", "loop"] = "v"
    barriers: Annotated[int, msgspec.Meta(ge=0, le=3)] = 0
    synchronous: bool = False
    split_backward: bool = False
    programs: tuple[tuple[Pass, ...], ...]

    @property
    def stages(self) -> int:
        """Pipeline stages: ranks x chunks."""
        return self.ranks * self.chunks

    @property
    def output_parts(self) -> int:
        """Parts into which S is split (2 with three barriers)."""
        return 2 if self.barriers == 3 else 1

    def stage(self, rank: int, chunk: int) -> int:
        """Return the pipeline position of a rank's chunk; odd chunks of a V run back up."""
        up = self.layout == "v" and chunk % 2 == 1
        return chunk * self.ranks + (self.ranks - 1 - rank if up else rank)

    def place(self, stage: int) -> tuple[int, int]:
        """Return the (rank, chunk) that holds a stage: the inverse of `stage`."""
        chunk, rank = divmod(stage, self.ranks)
        up = self.layout == "v" and chunk % 2 == 1
        return (self.ranks - 1 - rank if up else rank), chunk

    def parts(self, kind: Kind) -> int:
        """Return into how many chunks the passes of a kind are numbered on each rank."""
        if kind in ("F", "B", "W"):
            return self.chunks
        return self.output_parts if kind == "S" else 1

    def label(self, item: Pass) -> str:
        """Return a pass as the papers write it: F3, or F1.3 where a kind has several chunks."""
        if self.parts(item.kind) == 1:
            return f"{item.kind}{item.batch}"
        return f"{item.kind}{item.chunk}.{item.batch}"
