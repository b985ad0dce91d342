"""Rows of a data set: a prompt as text or as messages, and whatever columns a reward reads."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any, cast

from common.errors import InputError

Row = dict[str, Any]
Messages = list[dict[str, str]]


def load_rows(name: str) -> list[Row]:
    """Return the rows of a JSONL or parquet file, or of the shipped set (`small`).

    Each has a column `prompt`, text or messages, or a column `messages`.
    """
    if name == "small":
        text = resources.files("puzzle").joinpath("data/prompts.jsonl").read_text(encoding="utf-8")
        return _from_lines(text, "small")
    path = Path(name)
    if not path.is_file():
        raise InputError(f"running.prompts {name!r} is neither 'small' nor a file")
    if path.suffix == ".parquet":
        return _from_parquet(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text at byte {error.start}") from error
    return _from_lines(text, name)


def asked(row: Row) -> str | Messages:
    """Return what a row asks: text, or messages for the tokenizer's chat template."""
    return row["prompt"] if "prompt" in row else row["messages"]


def _from_lines(text: str, name: str) -> list[Row]:
    found: list[Row] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{where}: no JSON object with a 'prompt'") from error
        found.append(_checked(row, where))
    return _some(found, name)


def _from_parquet(path: Path) -> list[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        rows = parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: no whole parquet file with a column 'prompt'") from error
    if rows and not {"prompt", "messages"} & set(rows[0]):
        raise InputError(f"{path}: no whole parquet file with a column 'prompt'")
    found = [_checked(row, f"{path}, row {number}") for number, row in enumerate(rows, 1)]
    return _some(found, str(path))


def _some(found: list[Row], name: str) -> list[Row]:
    if not found:
        raise InputError(f"{name}: no prompts in it")
    return found


def _checked(row: object, where: str) -> Row:
    """Return a row, or raise InputError where it asks nothing that can be encoded."""
    if not isinstance(row, dict) or not {"prompt", "messages"} & row.keys():
        raise InputError(f"{where}: no JSON object with a 'prompt'")
    made = cast("Row", row)
    value = asked(made)
    if isinstance(value, list):
        _check_messages(cast("list[object]", value), where)
    elif not isinstance(value, str):
        raise InputError(f"{where}: the prompt is {str(value)[:40]!r}, expected text")
    elif any("\ud800" <= sign <= "\udfff" for sign in value):
        raise InputError(f"{where}: the prompt has half of a surrogate pair, which is no text")
    return made


def _check_messages(messages: list[object], where: str) -> None:
    for message in messages:
        known = isinstance(message, dict) and all(
            isinstance(message.get(field), str) for field in ("role", "content")
        )
        if not known:
            raise InputError(
                f"{where}: a message is {str(message)[:40]!r}, expected an object with the texts"
                " 'role' and 'content'"
            )
    last = cast("Messages", messages)[-1]["role"] if messages else "nobody"
    if last in ("assistant", "nobody"):
        raise InputError(
            f"{where}: the last message is by {last!r}, expected one to answer; leave an answer"
            " out, or give it in a column of its own"
        )
