"""The machine's constants: speeds, bandwidths and memory, as named calibrations or a user's own."""

import tomllib
from functools import cache
from importlib import resources
from itertools import pairwise

import msgspec

from common.errors import InputError


class Machine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One device and its links; times in ms, rates in TFLOP/s and GB/s, memory in GiB."""

    about: str = ""
    """What was measured, or where the constants are from."""
    peak_tflops: float
    """Denominator of MFU, TFLOP/s."""
    memory_gib: float
    """Memory of a rank's device, GiB."""
    node_ranks: int = 8
    """Ranks per machine; beyond them links are the network's."""
    sequences: tuple[int, ...]
    """Sequence lengths at which `layer_tflops` and `input_ms` were taken, growing."""
    layer_tflops: tuple[float, ...]
    """TFLOP/s of transformer layers at hidden size 3072, elementwise work included."""
    input_ms: tuple[float, ...]
    """Embedding forward and reading the batch, ms per sequence."""
    output_tflops: float
    """TFLOP/s of the output layer's S and T together, without `output_fixed_ms`."""
    output_fixed_ms: float
    """Launches and elementwise work of S and T, ms per 1024 tokens, whatever the vocabulary."""
    vocab_2_factor: float
    """Time of Algorithm 2's S and T relative to Algorithm 1's, without `output_fixed_ms`."""
    overlap_vocab: float
    """Factor by which layers are slower while the vocabulary's collectives run beside them."""
    overlap_interlaced: float
    """The same in the interlaced schedule."""
    step_ms: float
    """Optimizer and the iteration's tail, ms."""
    output_forward_share: float = 0.456
    """Part of a whole output layer's time that is its forward pass."""
    meeting_machines: tuple[int, ...] = (2, 4)
    """Machines at which `meeting_share` was taken."""
    meeting_share: tuple[float, ...] = (1e-6, 0.1095)
    """Part of an iteration that interlaced loses to its synchronous collectives, by machines: at 4
    the paper's ablation (appendix B.2: 10.95 % on 32 GPUs), at 2 nothing that Table 5 shows."""
    hidden_saturation: float = 850.0
    """h0 of a layer's efficiency h / (h + h0): elementwise work and launches grow with h, the
    products with its square."""
    output_saturation: float = 1800.0
    """The output layer's h0: a logit costs softmax and loss whatever h, and its product h."""
    embedding_gb_s: float = 455.0
    """Rate of writing the dense gradient of an embedding, GB/s."""
    collective_gb_s: float = 200.0
    """Rate of collectives inside a machine, GB/s."""
    network_gb_s: float = 20.0
    """Rate of collectives and P2P that leave a machine, GB/s."""
    p2p_ms: float = 0.0875
    """One way, ms per 1024 tokens of hidden size 3072."""
    memory_gb_s: float = 2039.0
    """Bandwidth of the device's memory, GB/s."""
    reserve: float = 0.075
    """Part of the memory that driver, context, communicators and fragmentation take from tensors:
    between what the published rows that fit (73.1 of 80 GiB) and those out of memory (74.7)
    leave."""
    activation_bytes: float = 34.0
    """Bytes per token, hidden unit and layer of a live micro-batch in 16 bit, 2 of them masks."""

    def __post_init__(self) -> None:
        """Refuse what is not positive and points that do not belong together."""
        counts = [len(self.sequences), len(self.layer_tflops), len(self.input_ms)]
        if len({*counts}) != 1 or not self.sequences:
            raise InputError(
                "machine: sequences, layer_tflops and input_ms need equally many entries, one or"
                f" more; found {counts}"
            )
        if len(self.meeting_machines) != len(self.meeting_share):
            raise InputError("machine: meeting_machines and meeting_share differ in length")
        if any(a >= b for a, b in pairwise(self.sequences)):
            raise InputError(f"machine.sequences {list(self.sequences)} must grow")
        if not 0 < self.reserve < 1:
            raise InputError(f"machine.reserve is {self.reserve}, expected above 0, below 1")
        for field, value in msgspec.structs.asdict(self).items():
            values = value if isinstance(value, tuple) else (value,)
            if field != "about" and not all(item > 0 for item in values):
                raise InputError(f"machine.{field} is {value}, expected above 0")


_REFERENCE_HIDDEN = 3072


def width_factor(hidden: int, saturation: float) -> float:
    """Return the efficiency h / (h + h0) at a hidden size, relative to that at 3072."""
    h0 = saturation
    return (hidden / (hidden + h0)) / (_REFERENCE_HIDDEN / (_REFERENCE_HIDDEN + h0))


def at_sequence(machine: Machine, values: tuple[float, ...], sequence: int) -> float:
    """Return a constant at a sequence length."""
    return between(machine.sequences, values, sequence)


def between(places: tuple[int, ...], values: tuple[float, ...], place: float) -> float:
    """Return a value at a place: linear between the given ones, constant beyond."""
    points = [*zip(places, values, strict=True)]
    if place <= points[0][0]:
        return points[0][1]
    for (left, low), (right, high) in pairwise(points):
        if place <= right:
            return low + (high - low) * (place - left) / (right - left)
    return points[-1][1]


@cache
def known_machines() -> dict[str, Machine]:
    """Return the named calibrations (`data/machines.toml`)."""
    text = resources.files("vocab_parallel").joinpath("data/machines.toml").read_text()
    return msgspec.convert(tomllib.loads(text), dict[str, Machine])
