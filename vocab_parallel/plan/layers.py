"""How many transformer layers each stage holds: evenly, or moved off the last stage (redis).

The artifact's rule for layer redistribution: the longest stage's compute is minimised over the
number of layers left on the last stage.
"""

from common.errors import InputError


def shared_layers(layers: int, stages: int, *, ranks: int, whole_output: bool) -> tuple[int, ...]:
    """Return layers per stage, as evenly as they go.

    What does not divide goes to the later stages, which hold fewer micro-batches, one layer each;
    the last one is left out where it has the whole output layer. Refuses fewer layers than ranks;
    of several stages a rank has, some may stay without.
    """
    if layers < ranks:
        raise InputError(
            f"{layers} layers cannot fill {ranks} ranks; use fewer pipeline.ranks, or give"
            " pipeline.layers with 0 for a stage without"
        )
    each, more = divmod(layers, stages)
    last = stages - 1 - whole_output
    return tuple(each + (last - more < stage <= last) for stage in range(stages))


def given_layers(given: tuple[int, ...], layers: int, stages: int) -> tuple[int, ...]:
    """Return layers per stage as given; refuses another number of stages or of layers."""
    if min(given) < 0:
        raise InputError(f"pipeline.layers {list(given)} has a negative number, expected 0 or more")
    if len(given) != stages or sum(given) != layers:
        raise InputError(
            f"pipeline.layers {list(given)} has {len(given)} stages and {sum(given)} layers,"
            f" expected {stages} and {layers}"
        )
    return given


def final_stage_layers(layers: int, stages: int, ratio: float) -> int:
    """Return f that minimises max(ceil((L - f) / (p - 1)), f + ratio); on a tie the larger f.

    `ratio` is the output layer's compute in transformer layers. The artifact itself used 2 where
    this gives 1 (sequence 2048, vocabulary 128k): see `override` of `redistributed_layers`.
    """
    if stages < 2:
        return layers
    choices = range(layers - stages + 2)
    return min(choices, key=lambda f: (max(-(-(layers - f) // (stages - 1)), f + ratio), -f))


def redistributed_layers(
    layers: int, stages: int, ratio: float, *, override: int | None = None
) -> tuple[int, ...]:
    """Return layers per stage: f on the last, the rest shared, remainders from rank p-2 down.

    `override` fixes f. Raises InputError where a stage before the last would stay empty.
    """
    if layers < stages - 1:
        raise InputError(
            f"{layers} layers cannot fill the {stages - 1} stages before the last;"
            f" choose {stages - 1} layers or more"
        )
    final = final_stage_layers(layers, stages, ratio) if override is None else override
    if stages == 1:
        return (layers,)
    if not 0 <= final <= layers - (stages - 1):
        raise InputError(
            f"pipeline.final_stage_layers is {final}, expected 0 to {layers - stages + 1}"
            f" ({layers} layers, one or more on each of the other {stages - 1} stages)"
        )
    each, more = divmod(layers - final, stages - 1)
    return (*(each + (rank >= stages - 1 - more) for rank in range(stages - 1)), final)
