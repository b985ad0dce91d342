"""A plan carried out: a small GPT trained on real ranks, measured next to what was predicted.

Read `layout` (who holds what), `parallel` and `model` (a rank's slice of a layer), `exchange`
(between stages of unlike layout), `pipeline` (one iteration), `train` (one rank), `launch`
(the whole), then `launch_files`. Importing this loads no torch.
"""

from common.errors import RankError
from metis.run.launch import launch
from metis.run.settings import RunResult, StageTime, Training

__all__ = ["RankError", "RunResult", "StageTime", "Training", "launch"]
