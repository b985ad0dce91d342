"""What the walk itself needs to know of switches and policy, as flat booleans."""

from typing import NamedTuple


class Rules(NamedTuple):
    """The switches and the policy that the walk itself looks at."""

    stratified: bool
    lossy_balancer: bool
    empty_stages: bool
    first_success_ends_chain: bool
    sends_every_batch: bool
