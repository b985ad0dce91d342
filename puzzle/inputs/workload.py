"""One PPO step's work: batch, lengths, and how it is cut into micro-batches."""

from math import isqrt

import msgspec

from common.errors import InputError


class Workload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes of one step, in sequences and tokens."""

    batch: int = 256
    """Sequences of all replicas together."""
    prompt: int = 256
    """Tokens of a prompt, padded to that."""
    answer: int = 256
    """Most tokens of an answer."""
    micro_batch: int = 4
    """Sequences of a micro-batch of training; method `auto` searches it."""
    inference_tokens: int = 1024
    """Most tokens of a micro-batch of the inference stage; `auto` searches it."""
    prefill_micro_batch: int = 4
    """Sequences whose prompts pass at once; divides decode_micro_batch; `auto` searches it."""
    decode_micro_batch: int = 16
    """Sequences that are decoded at once; divides those of a replica; `auto` searches it."""

    def __post_init__(self) -> None:
        """Refuse sizes below 1."""
        for field in self.__struct_fields__:
            if getattr(self, field) < 1:
                raise InputError(f"workload.{field} is {getattr(self, field)}, expected 1 or more")

    @property
    def length(self) -> int:
        """Tokens of a whole sequence."""
        return self.prompt + self.answer

    def scored(self, rows: int) -> int:
        """Return the sequences of a micro-batch of the inference stage, of a replica's `rows`.

        As many as `inference_tokens` hold, at least one, or the next smaller divisor of `rows`.
        """
        most = max(1, self.inference_tokens // self.length)
        return divisors(rows, most)[-1]

    def cut(self, data: int) -> str:
        """Return the micro-batches of training, scoring, prefill and decoding, as tables do."""
        made = self.prefill_micro_batch, self.decode_micro_batch
        sizes = self.micro_batch, self.scored(self.local(data)), *made
        return "/".join(map(str, sizes))

    def local(self, data: int) -> int:
        """Return the sequences of one replica; refuses a batch that does not divide."""
        if self.batch % data:
            raise InputError(f"workload.batch {self.batch} does not divide into {data} replicas")
        return self.batch // data


def divisors(count: int, most: int | None = None) -> list[int]:
    """Return the sizes up to `most` that cut `count` sequences without rest, smallest first."""
    small = [size for size in range(1, isqrt(count) + 1) if count % size == 0]
    every = small + [count // size for size in reversed(small) if size * size != count]
    return [size for size in every if most is None or size <= most]


def check_workload(work: Workload, data: int, generation_data: int) -> None:
    """Raise InputError unless the batch is cut without rest in both layouts."""
    train, made = work.local(data), work.local(generation_data)
    if train % work.micro_batch:
        raise InputError(
            f"workload.micro_batch {work.micro_batch} does not divide the {train} sequences of a"
            " training replica"
        )
    decode, prefill = work.decode_micro_batch, work.prefill_micro_batch
    if decode % prefill or made % decode:
        raise InputError(
            f"workload.prefill_micro_batch {prefill} must divide decode_micro_batch {decode}, and"
            f" that the {made} sequences of a generation replica"
        )
