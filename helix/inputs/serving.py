"""How a plan is served for real: where the weights are, who may call, what is played."""

import math
from typing import Literal

import msgspec

from common.errors import InputError

Load = Literal["clients", "workload"]


class ServeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the verb `run` does with a plan."""

    load: Load = "clients"
    """Who asks: clients over HTTP until a signal ends it, or the experiment's own workload."""
    weights: str = ""
    """A Hugging Face folder with a LLaMA; empty: random weights of model.shape."""
    vocabulary: int = 259
    """Of random weights; 259 is bytes and three marks."""
    longest: int = 4096
    """Of random weights: most tokens of context."""
    host: str = "127.0.0.1"
    port: int = 8000
    address: str = ""
    """A Ray cluster to run on ("auto" or host:port); empty: start Ray on this machine."""
    device: Literal["cpu", "cuda"] = "cpu"
    gpus: float = 0.0
    """Of each machine, as Ray counts them; 1 gives every machine a GPU of its own."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    threads: int = 1
    """Of each machine's arithmetic on a CPU."""
    play: bool = False
    """Play the cluster: links take the delay and bandwidth given, layers the profile's time."""
    high_water: float = 0.9
    """Share of a KV cache that admitted requests are expected to fill at most."""
    answer_part: float = 1.0
    """How long answers are expected to become, in parts of the mean of 240 tokens."""
    most_waiting: int = 256
    """Requests that wait for room; more are refused."""
    patience_s: float = 120.0
    """A request without a new token for so long fails."""
    drain_s: float = 30.0
    """After SIGTERM requests at work have so long to end."""
    restart: bool = True
    """Start a machine that was lost again."""
    trace: bool = False
    """Write what happened when, to be opened in Perfetto."""

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        for field in ("vocabulary", "longest", "threads", "most_waiting"):
            if getattr(self, field) < 1:
                raise InputError(f"serve.{field} is {getattr(self, field)}, expected 1 or more")
        for field in ("answer_part", "patience_s"):
            if not 0 < getattr(self, field) < math.inf:
                raise InputError(f"serve.{field} is {getattr(self, field)}, expected above 0")
        for field in ("gpus", "drain_s"):
            if not 0 <= getattr(self, field) < math.inf:
                raise InputError(f"serve.{field} is {getattr(self, field)}, expected 0 or more")
        if not 0 < self.high_water <= 1:
            raise InputError(f"serve.high_water is {self.high_water}, expected above 0, at most 1")
        if not 0 <= self.port < 65536:
            raise InputError(f"serve.port is {self.port}, expected 0 (any) to 65535")
