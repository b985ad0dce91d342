"""The analytic profile: times and memory of any model's layers from the devices' data sheets.

Every operation takes the longer of its arithmetic at the dense peak and its traffic at the memory
bandwidth (roofline: Williams et al., CACM 52(4), 2009), each times an efficiency. A tensor group
of t adds Megatron's two all-reduces a layer and direction (Shoeybi et al., arXiv 1909.08053,
section 3), 2 (t - 1) / t of the bytes over the node's link.

Memory follows Korthikanti et al., arXiv 2205.05198, section 4, with attention that keeps no
scores (Dao et al., arXiv 2205.14135) and without dropout masks: per token and layer 8 h bytes that
every rank of the group holds and 24 h / t that are shared out, for a GPT in 16 bits; the same
tensors are counted for gated MLPs and fewer KV heads.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec

from common.architecture import Matrix
from common.devices import Device
from common.errors import InputError
from metis.inputs.model import Model
from metis.inputs.profile import LayerProfile, ProfileKey, Profiles
from metis.inputs.savings import Savings, kept_values, mlp_width, of_mlp
from metis.inputs.synth import powers_of_two

ORIGIN = "analytic profile"

MS, MB = 1e3, 2**20

HOPPER = 2022
"""Year from which on attention's share of the peak is lower."""

BACKWARD = 2
"""A backward pass is twice the forward: gradients of inputs and of weights."""

Dtype = Literal["float16", "bfloat16", "float32"]


class Efficiency(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the devices reach of their data sheets; the defaults are fitted to published runs."""

    compute: float = 0.75
    """Of the dense peak, in matrix products."""
    attention: float | None = None
    """Of the dense peak, in attention's scores and values; by default 0.30, and 0.13 on devices
    from 2022 on, whose peak grew faster than what attention's kernels reach."""
    memory: float = 0.34
    """Of the memory bandwidth, in norms, sums, activations, loss and optimizer: kernels that are
    not fused move more bytes than are counted here."""
    link: float = 0.7
    """Of the rate between devices of a node, in tensor groups' all-reduces."""

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        for field in self.__struct_fields__:
            value = getattr(self, field)
            if value is not None and not 0 < value <= 1:
                raise InputError(
                    f"profile.efficiency.{field} is {value}, expected above 0 and at most 1"
                )

    def attention_of(self, device: Device) -> float:
        """Return attention's share on a device; one whose year is unknown counts as a new one."""
        if self.attention is not None:
            return self.attention
        return 0.30 if device.year is not None and device.year < HOPPER else 0.13


FITTED = Efficiency()
"""The defaults, fitted to published runs."""


class Storage(NamedTuple):
    """Bytes of one value or parameter while training by Adam in a type."""

    value: int
    """A weight or activation."""
    gradient: int
    held: int
    """Weight, gradient, float32 weight where it is another, two moments."""
    moved: int
    """Read and written by an optimizer step: gradient, weights and moments."""


STORAGE: dict[Dtype, Storage] = {
    "float16": Storage(2, 4, 18, 30),
    "bfloat16": Storage(2, 4, 18, 30),
    "float32": Storage(4, 4, 16, 28),
}


def kept_bytes(model: Model, tp: int, dtype: Dtype) -> tuple[float, ...]:
    """Return what each layer keeps of one token for its backward pass, bytes a rank of `tp`.

    The embedding keeps its ids, which do not count; the head its inputs, its logits and those in
    float32.
    """
    a, value = model.architecture(), STORAGE[dtype].value
    head = 2 * a.hidden * value + a.vocabulary * (value + 4) / tp
    return (0.0, *(value * kept_values(a, i, tp) for i in range(a.layers)), head)


def layer_parameters(model: Model) -> tuple[int, ...]:
    """Return each layer's parameters; a tied head counts as a matrix of its own."""
    a = model.architecture()
    counts = a.parameters()
    last = counts.final + counts.head + (counts.embedding if a.tied else 0)
    return (counts.embedding + counts.positions, *counts.layers, last)


class Machine(NamedTuple):
    """One device type: its sheet, and GB/s between devices of a node."""

    device: Device
    link_gb_per_s: float


class Layers:
    """Times (ms, forward) and memory (bytes) of a model's layers on one device type."""

    def __init__(
        self, model: Model, machine: Machine, dtype: Dtype, efficiency: Efficiency
    ) -> None:
        self.model, self.storage = model, STORAGE[dtype]
        self.dtype: Dtype = dtype
        self.architecture = model.architecture()
        self.flops = machine.device.flops(dtype)
        self.link = 1e9 * machine.link_gb_per_s * efficiency.link
        self.memory = 1e9 * machine.device.memory_gb_per_s * efficiency.memory
        self.products = self.flops * efficiency.compute
        self.scores = self.flops * efficiency.attention_of(machine.device)
        context = (model.sequence_length + 1) // 2  # causal: half of the sequence on average
        self.scores_flop = self.architecture.attention_flop(context)
        self.matrices = [self.architecture.matrices(i) for i in range(self.architecture.layers)]
        self.parameters = layer_parameters(model)

    def forward_ms(self, layer: int, tokens: int, tp: int) -> float:
        """Return the forward pass of a layer of the architecture, all-reduces left out."""
        matrices = sum(self._product_ms(matrix, tokens, tp) for matrix in self.matrices[layer])
        return matrices + self._attention_ms(layer, tokens, tp) + self._rest_ms(layer, tokens, tp)

    def mlp_ms(self, layer: int, tokens: int, tp: int) -> float:
        """Return the forward pass of a layer's MLP, all-reduces left out."""
        matrices = [matrix for matrix in self.matrices[layer] if of_mlp(matrix.name)]
        products = sum(self._product_ms(matrix, tokens, tp) for matrix in matrices)
        return products + self._traffic_ms(
            self.storage.value * tokens * self._activation_values(layer) / tp
        )

    def head_ms(self, tokens: int, tp: int) -> float:
        """Return the forward pass of the output matrix and the cross entropy in float32."""
        a = self.architecture
        matrix = Matrix("head", a.hidden, a.vocabulary, 0, 1, 1)
        logits = tokens * a.vocabulary * (self.storage.value + 4) / tp
        return self._product_ms(matrix, tokens, tp) + self._traffic_ms(logits)

    def embedding_ms(self, tokens: int) -> float:
        """Return the look-up of rows: each is read and written."""
        return self._traffic_ms(2 * tokens * self.architecture.hidden * self.storage.value)

    def allreduce_ms(self, tokens: int, tp: int) -> float:
        """Return one all-reduce of the residual stream over a tensor group (ring)."""
        size = tokens * self.architecture.hidden * self.storage.value
        return MS * 2 * (tp - 1) / tp * size / self.link

    def optimizer_ms(self) -> float:
        """Return Adam's step of the whole model, bound by memory."""
        return self._traffic_ms(sum(self.parameters) * self.storage.moved)

    def profile(self, tp: int, samples: int) -> LayerProfile:
        """Return the profile of a tensor degree and micro-batch."""
        tokens, count = samples * self.model.sequence_length, self.architecture.layers
        whole, reduce = 1 + BACKWARD, self.allreduce_ms(tokens, tp)
        kinds: dict[object, tuple[float, float]] = {}
        blocks = list[tuple[float, float]]()
        for i in range(count):
            kind = self.architecture.has_experts(i), self.architecture.window(i)
            if kind not in kinds:
                kinds[kind] = self.forward_ms(i, tokens, tp), self.mlp_ms(i, tokens, tp)
            blocks.append(kinds[kind])
        layer_ms = [
            self.embedding_ms(tokens) * whole + reduce,
            *(whole * forward + 4 * reduce for forward, _ in blocks),
            self.head_ms(tokens, tp) * whole + reduce,
        ]
        kept = kept_bytes(self.model, tp, self.dtype)
        memory = [
            (parameters / tp * self.storage.held + tokens * token) / MB
            for parameters, token in zip(self.parameters, kept, strict=True)
        ]
        return LayerProfile(
            layer_ms=tuple(layer_ms),
            memory_mb=tuple(memory),
            parameters_bytes=tuple(float(self.storage.gradient * n) for n in self.parameters),
            forward_backward_ms=sum(layer_ms),
            optimizer_ms=self.optimizer_ms(),
            batch_generator_ms=0.0,
            again_ms={
                "full": (0.0, *(forward + 2 * reduce for forward, _ in blocks), 0.0),
                "selective": (0.0, *(mlp + reduce for _, mlp in blocks), 0.0),
            },
        )

    def _product_ms(self, matrix: Matrix, tokens: int, tp: int) -> float:
        flop = 2 * tokens * matrix.active * matrix.inputs * matrix.outputs / tp
        weights = matrix.copies * matrix.inputs * matrix.outputs / tp
        values = tokens * matrix.active * (matrix.inputs + matrix.outputs) / tp
        return max(
            MS * flop / self.products,
            self._traffic_ms(self.storage.value * (weights + values)),
        )

    def _attention_ms(self, layer: int, tokens: int, tp: int) -> float:
        flop, a = tokens * self.scores_flop[layer] / tp, self.architecture
        values = tokens * a.head_dim * 2 * (a.heads + a.kv_heads) / tp
        return max(
            MS * flop / self.scores,
            self._traffic_ms(self.storage.value * values),
        )

    def _rest_ms(self, layer: int, tokens: int, tp: int) -> float:
        """Norms read and write, sums read two and write one, activations read all and write one."""
        values = (2 * int(self.architecture.facts["norms"]) + 2 * 3) * self.architecture.hidden
        shared = self._activation_values(layer)
        return self._traffic_ms(self.storage.value * tokens * (values + shared / tp))

    def _activation_values(self, layer: int) -> int:
        """Return the values that the MLP's activation reads and writes of one token."""
        a = self.architecture
        return (3 if a.facts["gated"] else 2) * mlp_width(a, layer)

    def _traffic_ms(self, size: float) -> float:
        return MS * size / self.memory


def analytic(
    model: Model,
    machines: Mapping[str, Machine],
    *,
    max_tp: int,
    max_batch_size: int,
    dtype: Dtype = "float16",
    efficiency: Efficiency = FITTED,
) -> Profiles:
    """Return profiles of a model with all sizes on every device type of `machines`.

    Micro-batches are the powers of two up to the limit, tensor degrees all that divide the heads.

    Raises:
        InputError: a device's sheet has no peak for the type.
    """
    entries: dict[ProfileKey, LayerProfile] = {}
    for name, machine in machines.items():
        layers = Layers(model, machine, dtype, efficiency)
        for tp in filter(model.splits_over, range(1, max_tp + 1)):
            for bs in powers_of_two(max_batch_size):
                entries[ProfileKey(name, tp, bs)] = layers.profile(tp, bs)
    found = Profiles(entries, ORIGIN)
    storage = STORAGE[dtype]
    found.savings = Savings(model, 1 - (storage.value + storage.gradient) / storage.held)
    return found
