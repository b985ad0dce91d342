"""Requests and answers of the Open Inference Protocol (KServe v2) in JSON.

https://github.com/kserve/open-inference-protocol. A model takes `input_ids`, a row of token ids for
each request, and perhaps `attention_mask`, ones before zeros, which says how much of each row
counts; it answers `logits` and `label`.
"""

from itertools import chain
from typing import Any, Literal

import msgspec

from beta.run.books import Answer
from beta.run.specs import ModelSpec
from common.errors import InputError

MOST_ROWS = 256
"""Of one request."""
VERSION = "1"
"""Of every model: there is one."""
Whole = Literal["INT64", "INT32", "UINT64", "UINT32", "BOOL"]
IDS, MASK = "input_ids", "attention_mask"
LOGITS, LABEL = "logits", "label"


class Tensor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An input: its values in rows, or one after the other."""

    name: str
    shape: list[int]
    datatype: Whole
    data: list[Any]
    parameters: dict[str, Any] = {}


class Wanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An output that is asked for."""

    name: str
    parameters: dict[str, Any] = {}


class Inference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a request; `parameters.slo_s` is its own latency target in seconds."""

    inputs: list[Tensor]
    outputs: list[Wanted] = []
    id: str = ""
    parameters: dict[str, Any] = {}

    @property
    def slo_s(self) -> Any:
        """The latency target, as it was sent."""
        return self.parameters.get("slo_s")


def inference_of(body: bytes) -> Inference:
    """Return what a body asks. Raises InputError with one sentence."""
    form = f'expected {{"inputs": [{{"name": "{IDS}", "shape", "datatype", "data"}}]}}'
    try:
        asked = msgspec.json.decode(body, type=Inference)
    except msgspec.DecodeError as error:
        raise InputError(f"{form}: {error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{form}: the body is not UTF-8") from error
    unknown = {wanted.name for wanted in asked.outputs} - {LOGITS, LABEL}
    if unknown:
        raise InputError(f"no output {sorted(unknown)[0]!r}; there are {LOGITS} and {LABEL}")
    return asked


def rows_of(asked: Inference) -> list[list[int]]:
    """Return the token ids of each request in it. Raises InputError."""
    given = {tensor.name: tensor for tensor in asked.inputs}
    if IDS not in given or given.keys() - {IDS, MASK} or len(given) < len(asked.inputs):
        raise InputError(f"inputs are {[t.name for t in asked.inputs]}, expected {IDS} once, and"
                         f" {MASK} if any is shorter")  # fmt: skip
    ids = _rows(given[IDS])
    if MASK not in given:
        return ids
    masks = _rows(given[MASK])
    if given[MASK].shape != given[IDS].shape:
        raise InputError(f"{MASK} has shape {given[MASK].shape}, {IDS} {given[IDS].shape}")
    return [_kept(row, mask) for row, mask in zip(ids, masks, strict=True)]


def _kept(row: list[int], mask: list[int]) -> list[int]:
    count = sum(mask)
    if mask != [1] * count + [0] * (len(mask) - count):
        raise InputError(f"{MASK}: expected ones, then zeros, in every row")
    return row[:count]


def _rows(tensor: Tensor) -> list[list[int]]:
    if len(tensor.shape) != 2 or min(tensor.shape) < 1:
        raise InputError(f"{tensor.name} has shape {tensor.shape}, expected [requests, tokens]")
    rows, columns = tensor.shape
    if rows > MOST_ROWS:
        raise InputError(f"{tensor.name} has {rows} rows, expected at most {MOST_ROWS}")
    nested = [row for row in tensor.data if isinstance(row, list)]
    if nested and (len(nested) < len(tensor.data) or {*map(len, nested)} != {columns}):
        raise InputError(f"{tensor.name}: data has other rows than its shape {tensor.shape} says")
    values: list[Any] = [*chain(*nested)] if nested else tensor.data
    if len(values) != rows * columns:
        raise InputError(
            f"{tensor.name}: {len(values)} values in data, its shape {tensor.shape} says"
            f" {rows * columns}"
        )
    if not all(isinstance(value, int) for value in values):
        raise InputError(f"{tensor.name}: expected whole numbers in data")
    return [[*map(int, values[i : i + columns])] for i in range(0, len(values), columns)]


def answer_of(asked: Inference, model: ModelSpec, answers: list[Answer]) -> dict[str, Any]:
    """Return the body of the answer to a request whose rows were all served."""
    logits = [answer.logits for answer in answers]
    labels = [max(range(len(row)), key=row.__getitem__, default=-1) for row in logits]
    rows, columns = len(logits), len(logits[0])
    outputs = [
        _output(LOGITS, "FP32", [rows, columns], [*chain(*logits)]),
        _output(LABEL, "INT64", [rows], labels),
    ]
    wanted = {output.name for output in asked.outputs} or {LOGITS, LABEL}
    found: dict[str, Any] = {
        "model_name": model.name,
        "model_version": VERSION,
        "outputs": [output for output in outputs if output["name"] in wanted],
    }
    return found | ({"id": asked.id} if asked.id else {})


def _output(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def metadata_of(model: ModelSpec, labels: int) -> dict[str, Any]:
    """Return what a model takes and answers; -1 where a size is the request's."""

    def tensor(name: str, datatype: str, shape: list[int]) -> dict[str, Any]:
        return {"name": name, "datatype": datatype, "shape": shape}

    return {
        "name": model.name,
        "versions": [VERSION],
        "platform": "pytorch",
        "inputs": [tensor(IDS, "INT64", [-1, -1])],
        "outputs": [tensor(LOGITS, "FP32", [-1, labels]), tensor(LABEL, "INT64", [-1])],
    }
