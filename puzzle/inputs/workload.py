"""One PPO step's work: batch, lengths, and how it is cut into micro-batches."""

import msgspec

from common.errors import InputError


class Workload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes of one step, in sequences and tokens."""

    batch: int = 256
    """Sequences of all replicas together."""
    prompt: int = 256
    answer: int = 256
    micro_batch: int = 4
    """Of training."""
    inference_tokens: int = 1024
    """Most tokens of a micro-batch of the inference stage."""
    prefill_micro_batch: int = 4
    decode_micro_batch: int = 16

    def __post_init__(self) -> None:
        """Refuse sizes below 1."""
        for field in self.__struct_fields__:
            if getattr(self, field) < 1:
                raise InputError(f"workload.{field} is {getattr(self, field)}, expected 1 or more")

    @property
    def length(self) -> int:
        """Tokens of a whole sequence."""
        return self.prompt + self.answer

    @property
    def inference_micro_batch(self) -> int:
        """Sequences of a micro-batch of the inference stage."""
        return max(1, self.inference_tokens // self.length)

    def local(self, data: int) -> int:
        """Return the sequences of one replica; refuses a batch that does not divide."""
        if self.batch % data:
            raise InputError(f"workload.batch {self.batch} does not divide into {data} replicas")
        return self.batch // data


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
