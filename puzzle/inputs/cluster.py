"""Clusters as the cost model sees them: nodes, links, and the constants of a device."""

from functools import cache
from importlib import resources
from math import inf
from pathlib import Path

import msgspec

from common.case import read_toml
from common.errors import InputError

GB = 1e9


_DIVISORS = (
    "peak_tflops", "memory_gbps", "efficiency", "allreduce_gbps", "p2p_gbps", "weight_reads",
    "switch_gbps", "gather_gbps",
)  # fmt: skip
"""Constants that times are divided by."""


class Constants(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What times are predicted from; seconds, bytes/s given in GB/s, and plain factors.

    The names in brackets are those of the specification's section 7.
    """

    peak_tflops: float = 312.0
    """Dense half-precision peak of a device."""
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
    gather_s: float = 0.4
    """Fixed part of gathering all weights."""

    def __post_init__(self) -> None:
        """Refuse rates that are not above 0 and times below 0."""
        for field in self.__struct_fields__:
            value = getattr(self, field)
            if field in _DIVISORS and not 0 < value < inf:
                raise InputError(f"cluster.constants.{field} is {value}, expected above 0")
            if not 0 <= value < inf:
                raise InputError(f"cluster.constants.{field} is {value}, expected 0 or more")


class Cluster(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Devices, their memory, and a calibration."""

    about: str = ""
    devices: int = 8
    devices_per_node: int = 8
    memory_gib: float = 80.0
    constants: Constants = Constants()

    def __post_init__(self) -> None:
        """Refuse an empty cluster."""
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
