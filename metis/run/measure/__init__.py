"""The verb `profile`: this machine's devices measured into the profiles that plans are made from.

Read `measure` (the files), `layers` (times), `memory`. Importing this loads no torch.
"""

from metis.run.measure.measure import measure

__all__ = ["measure"]
