"""Clusters as the cost model sees them: nodes, links, and the constants of a device."""

from functools import cache
from importlib import resources
from math import inf
from pathlib import Path

import msgspec

from common.case import read_toml
from common.devices import Device, find
from common.errors import InputError

GB, GIB = 1e9, 2**30

_DIVISORS = (
    "peak_tflops", "memory_gbps", "efficiency", "allreduce_gbps", "p2p_gbps", "weight_reads",
    "switch_gbps", "gather_gbps", "between_gbps",
)  # fmt: skip
"""Constants that times are divided by."""


class Constants(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What times are predicted from; seconds, bytes/s given in GB/s, and plain factors.

    The names in brackets are those of the specification's section 7.
    """

    peak_tflops: float = 312.0
    """Dense peak of a device in the precision of the run."""
    memory_gbps: float = 1935.0
    """Memory bandwidth (HBM)."""
    efficiency: float = 0.65
    """Part of the peak that large products reach (eff)."""
    launch_train_s: float = 0.001
    """Host time per layer of a training pass (a_t)."""
    launch_infer_s: float = 0.0005
    """Host time per layer of an inference or prefill pass (a_f)."""
    launch_decode_s: float = 0.0003
    """Host time per layer of a decode step (a_dec)."""
    backward_factor: float = 2.0
    """Backward over forward time (bf)."""
    loss_s: float = 0.0
    """Head and loss of a micro-batch on the actor's last stage, beyond its products (loss)."""
    allreduce_gbps: float = 100.0
    """Bus bandwidth of a tensor-parallel all-reduce of large tensors (ar)."""
    allreduce_latency_s: float = 2e-5
    """Latency of a large all-reduce (ar_lat)."""
    decode_allreduce_s: float = 2e-5
    """Latency of the small all-reduces of decoding (arl)."""
    p2p_gbps: float = 50.0
    """Between neighbouring pipeline stages."""
    p2p_latency_s: float = 1e-3
    """Per message between stages, in training and prefill."""
    decode_p2p_s: float = 1e-4
    """Per hop of a decode step (gp2p)."""
    update_s: float = 0.0
    """Fixed part of an optimizer step (opt)."""
    update_s_per_billion: float = 0.0
    """Optimizer step per 1e9 parameters that a device holds."""
    inference_s: float = 0.0
    """Fixed part of the inference stage (inf0)."""
    weight_reads: float = 1.0
    """Part of the memory bandwidth that reading weights reaches in decoding (bweff)."""
    cache_reads: float = 1.0
    """Traffic of the KV cache over its size (kvm)."""
    sample_s: float = 0.0
    """Sampling on the last stage, per step (samp)."""
    sample_s_per_sequence: float = 0.0
    """Sampling per sequence of a decode micro-batch (samp_b)."""
    full_ring: float = 1.0
    """Factor of a decode slot where as many micro-batches as stages are under way: each message
    meets a busy receiver, so that stages wait for each other."""
    switch_gbps: float = 8.0
    """Effective bandwidth of the original's switch, which sends tensor by tensor."""
    message_s: float = 5e-5
    """Per bucket of a switch in buckets, whose bytes move at `gather_gbps`."""
    gather_gbps: float = 10.0
    """Bandwidth of large messages among all devices, as in DeepSpeed-Chat's gather (beta_ag)."""
    between_gbps: float | None = None
    """Bandwidth of a device's large messages to other nodes; as inside a node if it is not given
    (in the paper's calibrations the other rates are of all nodes together)."""
    gather_s: float = 0.4
    """Fixed part of gathering all weights."""

    def __post_init__(self) -> None:
        """Refuse rates that are not above 0 and times below 0."""
        for field in self.__struct_fields__:
            value = getattr(self, field)
            if value is None:
                continue
            if field in _DIVISORS and not 0 < value < inf:
                raise InputError(f"cluster.constants.{field} is {value}, expected above 0")
            if not 0 <= value < inf:
                raise InputError(f"cluster.constants.{field} is {value}, expected 0 or more")


USABLE = 0.9
_USUAL_GIB = 80.0
_LINKS, _MEMORY = 0.75, 0.8
"""Parts of a data sheet's rates that large messages and reads of memory reach."""
_NETWORK_GBPS = 50.0
"""Of a device to other nodes: one 400 Gb/s adapter each, as in most nodes of eight."""


def analytic(sheet: Device) -> Constants:
    """Return the constants of a device that nobody measured, from its data sheet.

    Rates are the sheet's times named efficiencies; host times per layer are those fitted to the
    paper's runs, which the device makes no faster. AdamW reads and writes 28 bytes a parameter.
    """
    peaks = [sheet.tflops[kind] for kind in ("bf16", "fp16", "fp32") if kind in sheet.tflops]
    link = _LINKS * (sheet.link_gb_per_s or sheet.pcie_gb_per_s)
    return Constants(
        peak_tflops=peaks[0],
        memory_gbps=sheet.memory_gb_per_s,
        efficiency=0.55,
        launch_train_s=0.0012,
        launch_infer_s=0.0005,
        launch_decode_s=0.0002,
        allreduce_gbps=link,
        p2p_gbps=link,
        gather_gbps=link,
        between_gbps=min(link, _LINKS * _NETWORK_GBPS),
        weight_reads=_MEMORY,
        update_s_per_billion=28 / (_MEMORY * sheet.memory_gb_per_s),
    )


class Cluster(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Devices, their memory, and a calibration."""

    about: str = ""
    """One line on what it is."""
    devices: int = 8
    """Devices of all nodes."""
    devices_per_node: int = 8
    """Devices of a node, inside which tensor groups lie."""
    device: str = ""
    """A device by its data sheet (`H100`): gives memory_gib and constants where they are not given,
    an analytic profile."""
    memory_gib: float = _USUAL_GIB
    """Memory of a device that a plan may use, GiB; by a data sheet 0.9 of it, the rest for CUDA's
    context and communication."""
    constants: Constants = Constants()
    """What times are predicted from; `profile` measures this machine's."""

    def __post_init__(self) -> None:
        """Take what a data sheet says; refuse an empty cluster."""
        if self.device:
            sheet = find(self.device)
            if self.memory_gib == _USUAL_GIB:
                usable = USABLE * sheet.memory_gb * GB / GIB
                msgspec.structs.force_setattr(self, "memory_gib", usable)
            if self.constants == Constants():
                msgspec.structs.force_setattr(self, "constants", analytic(sheet))
        for field in ("devices", "devices_per_node"):
            if getattr(self, field) < 1:
                raise InputError(f"cluster.{field} is {getattr(self, field)}, expected 1 or more")
        if not self.memory_gib > 0:
            raise InputError(f"cluster.memory_gib is {self.memory_gib}, expected above 0")


@cache
def known_clusters() -> dict[str, Cluster]:
    """Return the calibrated clusters by name (`data/clusters.toml`)."""
    with resources.as_file(resources.files("puzzle").joinpath("data/clusters.toml")) as path:
        return read_toml(Path(path), dict[str, Cluster])
