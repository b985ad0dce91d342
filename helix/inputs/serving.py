"""How a plan is served for real: where the weights are, who may call, what is played."""

import math
import os
from pathlib import Path
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
    """Address to listen on; 0.0.0.0: every one of this machine's."""
    port: int = 8000
    """Port to listen on; 0: any that is free."""
    api_key: str = ""
    """Where the key is that clients have to send as a bearer token: env:NAME or file:PATH; empty:
    none is asked for. The key itself would go into every record of a run."""
    address: str = ""
    """A Ray cluster to run on ("auto" or host:port); empty: start Ray on this machine."""
    device: Literal["cpu", "cuda"] = "cpu"
    """What every machine computes with."""
    gpus: float = 0.0
    """Of each machine, as Ray counts them; 1 gives every machine a GPU of its own."""
    dtype: Literal["", "float32", "float16", "bfloat16"] = ""
    """Of weights, activations and KV cache; empty: as the plan's memory counts them. One that takes
    more than the plan counts is refused."""
    threads: int = 1
    """Threads of each machine's arithmetic on a CPU."""
    play: bool = False
    """Play the cluster: links take the delay and bandwidth given, layers the profile's time."""
    high_water: float = 0.9
    """Share of a KV cache that admitted requests are expected to fill at most."""
    answer_part: float = 1.0
    """How long answers are expected to become, in parts of the mean of 240 tokens."""
    most_waiting: int = 256
    """Requests that wait for room; more are refused."""
    patience_s: float = 120.0
    """A request without a new token for so many seconds fails."""
    drain_s: float = 30.0
    """After SIGTERM requests at work have so many seconds to end."""
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
        if self.api_key and not self.api_key.startswith(("env:", "file:")):
            raise InputError("serve.api_key is a key itself, expected env:NAME or file:PATH")
        if not 0 <= self.port < 65536:
            raise InputError(f"serve.port is {self.port}, expected 0 (any) to 65535")

    def key(self) -> str:
        """Return the key that clients have to send; empty: none.

        Raises:
            InputError: there is none where `api_key` says.
        """
        kind, _, place = self.api_key.partition(":")
        if not kind:
            return ""
        try:
            found = os.environ[place] if kind == "env" else Path(place).read_text()
        except KeyError:
            raise InputError(f"serve.api_key: {place} is not set in the environment") from None
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"serve.api_key: {place}: {error}") from None
        if not found.strip():
            raise InputError(f"serve.api_key: {place} is empty")
        return found.strip()
