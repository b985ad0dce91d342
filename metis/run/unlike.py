"""What stages differ in that most trainers let no stages differ in, one sentence each."""

from metis.plan.plans import Plan


def unlike(plan: Plan) -> list[str]:
    """Return what a trainer that treats all stages and replicas alike has no way to say."""
    found = list[str]()
    if len({(stage.dp, stage.tp) for stage in plan.stages}) > 1:
        each = [f"stage {n} dp{stage.dp} tp{stage.tp}" for n, stage in enumerate(plan.stages)]
        found.append(f"it gives all stages the same degrees; here: {', '.join(each)}.")
    elif len({count for stage in plan.stages for count in stage.samples}) > 1:
        each = [f"stage {n} {list(stage.samples)}" for n, stage in enumerate(plan.stages)]
        found.append(f"it gives all replicas the same micro-batch size; here: {', '.join(each)}.")
    if len({stage.recompute for stage in plan.stages}) > 1:
        each = [f"stage {n} {stage.recompute}" for n, stage in enumerate(plan.stages)]
        found.append(
            f"it recomputes the same in all stages; here: {', '.join(each)}"
            ' (search.recompute = ["full"] or another one makes them alike).'
        )
    return found
