"""The constants of a device by its data sheet, where none were measured on it.

The paper's A100 (`a100-paper`) tells products from elementwise work: h / (h + h0) says which part
of a layer's time grows with what. Products follow the peak of the sheet, elementwise work and
copies the memory's bandwidth, links the link's rate; the efficiencies of each are the A100's.
"""

import msgspec

from common.devices import Device, find
from vocab_parallel.inputs.machine import Machine, known_machines

_A100_TFLOPS = 312.0
_A100_GB_S = 2039.0
_A100_LINK_GB_S = 300.0
_HIDDEN = 3072
"""The hidden size that rates of a machine are said at."""


def from_sheet(name: str) -> Machine:
    """Return the constants of a device of `common.devices`; InputError where it has none."""
    sheet, base = find(name), known_machines()["a100-paper"]
    peak = sheet.flops("bf16") / 1e12
    faster, wider = peak / _A100_TFLOPS, sheet.memory_gb_per_s / _A100_GB_S
    nearer = _link(sheet) / _A100_LINK_GB_S
    hidden, output = (
        saturation * faster / wider
        for saturation in (base.hidden_saturation, base.output_saturation)
    )
    return msgspec.structs.replace(
        base,
        about=f"{sheet.name}, by its data sheet and the efficiencies of an A100",
        peak_tflops=peak,
        memory_gib=sheet.memory_gb,  # vendors' GB of device memory are GiB
        memory_gb_s=sheet.memory_gb_per_s,
        layer_tflops=tuple(
            _rate(value, base.hidden_saturation, faster, hidden) for value in base.layer_tflops
        ),
        output_tflops=_rate(base.output_tflops, base.output_saturation, faster, output),
        hidden_saturation=hidden,
        output_saturation=output,
        input_ms=tuple(value / wider for value in base.input_ms),
        output_fixed_ms=base.output_fixed_ms / wider,
        embedding_gb_s=base.embedding_gb_s * wider,
        step_ms=base.step_ms / wider,
        collective_gb_s=base.collective_gb_s * nearer,
        p2p_ms=base.p2p_ms / nearer,
    )


def _link(sheet: Device) -> float:
    """Return the rate of the link between devices of a node, GB/s per direction."""
    return sheet.link_gb_per_s or sheet.pcie_gb_per_s


def _rate(value: float, saturation: float, faster: float, ours: float) -> float:
    """Return the rate at hidden size 3072 where products are `faster` and h0 is another."""
    products = value * (_HIDDEN + saturation) / _HIDDEN
    return products * faster * _HIDDEN / (_HIDDEN + ours)
