"""Small random planning problems (hypothesis) and fixed ones."""

from hypothesis import strategies as st

from metis.inputs.cluster import Cluster, NodeGroup
from metis.inputs.model import Model
from metis.inputs.profile import LayerProfile, ProfileKey, Profiles
from metis.plan.problem import Problem
from metis.plan.switches import Switches, of_mode

COMPAT, STRICT = of_mode("compat"), of_mode("strict")


def make_profiles(layers: int, scale: dict[str, float], *, uneven: bool, max_tp: int) -> Profiles:
    """Return profiles with uneven layers, tensor overhead and memory that grows with the batch."""
    entries = {}
    for device, factor in scale.items():
        for tp in [tp for tp in (1, 2, 4, 8, 16) if tp <= max_tp]:
            for bs in (1, 2, 4, 8, 16):
                times = [
                    factor * (1 + (layer * 7 % 5 if uneven else 0)) * (0.5 + bs) / tp**0.8
                    for layer in range(layers)
                ]
                entries[ProfileKey(device, tp, bs)] = LayerProfile(
                    layer_ms=tuple(times),
                    memory_mb=tuple(900.0 / tp + 130.0 * bs / tp for _ in range(layers)),
                    parameters_bytes=tuple(2e8 + 1e7 * layer for layer in range(layers)),
                    forward_backward_ms=sum(times) * 1.1,
                    optimizer_ms=12.0 * factor,
                    batch_generator_ms=0.7,
                )
    return Profiles(entries, "test profile")


@st.composite
def problems(
    draw: st.DrawFn, *, powers_of_two: bool = False, switches: Switches | None = None
) -> Problem:
    """Draw a problem of at most 12 devices (8 and 16 where a power of two is needed)."""
    types = draw(st.sampled_from([("A",), ("A", "B"), ("B", "A")]))
    node = draw(st.sampled_from([1, 2, 4]))
    counts = [draw(st.integers(1, 3)) for _ in types]
    if powers_of_two:
        total = draw(st.sampled_from([4, 8]))
        counts = [total // node] if len(types) == 1 else [max(total // node // 2, 1)] * 2
    nodes = tuple(
        NodeGroup(
            device=device,
            count=count,
            devices=node,
            memory_gb=draw(st.sampled_from([2.0, 6.0, 24.0])),
            intra_bandwidth=draw(st.sampled_from([20.0, 50.0])),
            inter_bandwidth=draw(st.sampled_from([2.0, 10.0])),
        )
        for device, count in zip(types, counts, strict=True)
    )
    layers = draw(st.integers(3, 7))
    return Problem(
        model=Model(
            layers=layers,
            hidden_size=256,
            sequence_length=128,
            heads=8,
            global_batch=draw(st.sampled_from([4, 8, 16] if powers_of_two else [4, 6, 12])),
        ),
        cluster=Cluster(nodes=nodes),
        profiles=make_profiles(layers, {"A": 1.0, "B": 2.5}, uneven=draw(st.booleans()), max_tp=16),
        node_types=types,
        switches=switches or STRICT,
        max_tp=16,
        max_batch_size=16,
        group_variance=draw(st.sampled_from([0.5, 1.0])),
        max_permute_len=draw(st.sampled_from([3, 128])),
    )
