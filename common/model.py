"""Models as users have them: a Hugging Face `config.json`, a TOML table, a name of the catalogue.

`python -m common.model FILE_OR_NAME [--json]` prints what is known of one. The words, the families
and their defaults are data (`families.toml`); neither torch nor transformers is needed.
"""

import argparse
import json
import re
import sys
import tomllib
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import msgspec

from common.architecture import Architecture, sheet
from common.errors import InputError
from common.names import look_up, near

Words = dict[str, Any]


def read(source: str | Path | Mapping[str, Any]) -> Architecture:
    """Return the model of a `config.json`, its folder, a TOML file, such a table or a name.

    A table may hold `config`, one of the others, whose words its own words replace.

    Raises:
        InputError: what was given is no model of which all sizes are known.
    """
    given, where = _found(source)
    notes = [text for name, text in sheet()["notes"].items() if given.pop(name, None)]
    words, called = _words(given, sheet(), where)
    try:
        return _built(words, notes, where)
    except ValueError as error:
        what, _, path = str(error).partition(" - at `$.")
        text = f"`{path[:-1]}`: {what}" if path else what
        text = re.sub(r"`(\w+)`", lambda word: called.get(word[1], word[1]), text)
        raise InputError(text if text.startswith(where) else f"{where}: {text}") from error


def _found(source: str | Path | Mapping[str, Any]) -> tuple[Words, str]:
    """Return the words given, those of a text model inside with them, and where they are from."""
    if isinstance(source, Mapping):
        base, where = _found(source["config"]) if "config" in source else ({}, "model")
        ours = _names(sheet())
        own = {ours.get(word, word) for word in source}
        given = {word: base[word] for word in base if ours.get(word, word) not in own}
        given |= {word: source[word] for word in source if word != "config"}
    else:
        given, where = _file_or_name(source)
    if inner := sheet()["reading"]["outer"].get(str(given.get("model_type"))):
        text = _table(given.get("text_config") or {}, f"{where}: text_config")
        given = given | {"model_type": inner, "text_config": None} | text
    return given | _table(given.pop("facts", {}), f"{where}: facts"), where


def _file_or_name(source: str | Path) -> tuple[Words, str]:
    path = Path(source) / "config.json" if Path(source).is_dir() else Path(source)
    if not path.exists() and path.suffix not in (".json", ".toml"):
        remedy = "; nor is there such a config.json, folder of one or TOML file"
        named: Words = look_up(str(source), sheet("catalogue"), "model", remedy)
        return dict(named["config"]), str(source)
    try:
        text = path.read_text("utf-8-sig")
        given = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError) as error:  # not there, not UTF-8, not JSON
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    return dict(_table(given, str(path))), str(path)


def _table(value: Any, what: str) -> Words:
    if isinstance(value, dict):
        return cast("Words", value)
    raise InputError(f"{what} must be a table of fields, not {value!r:.40}")


def _names(known: Words) -> dict[str, str]:
    return {name: word for word, names in known["words"].items() for name in (word, *names)}


def _words(given: Words, known: Words, where: str) -> tuple[Words, Words]:
    """Return the given words by our names, defaults included, and what the file calls them."""
    key, reading, ours = next(iter(known["words"])), known["reading"], _names(known)
    kind = next((str(given[name]) for name in given if ours.get(name) == key), "")
    kinds = {name: name for name in known["families"]}
    kind = look_up(kind, kinds, f"{where}: {known['words'][key][0]}")
    rules = known["empty"] | known["families"][kind]
    ours |= {name: word for word, names in rules["words"].items() for name in names}
    called = {word: names[0] for word, names in (known["words"] | rules["words"]).items() if names}
    words: Words = {}
    for name, value in given.items():
        word = ours.get(name, name)
        if words.setdefault(word, value) != value:
            said = f"{called[word]} = {words[word]!r} contradicts {name} = {value!r}"
            raise InputError(f"{where}: {said}")
        called[word] = name
    absent = (*reading["absent"], *rules["absent"])
    words = {word: v for word, v in words.items() if v is not None or word not in absent}
    reads = {*reading["reads"], *rules["reads"], *rules["defaults"]}
    reads |= set(reading["rope_reads"]) if "rope_theta" in reads else set()
    usual = known["facts"] | rules["fixed"] | rules["required"]
    harmless = "|".join((*reading["harmless"], *rules["ignores"]))
    for word in [word for word in words if word not in reads]:
        value = words.pop(word)
        off = value == usual.get(word) or not (value or usual.get(word))
        if not off and not re.fullmatch(harmless, called[word]):
            like = near(called[word], {*ours, *reads, *usual} - {called[word]})
            raise InputError(f"{where}: {called[word]} = {value!r} is no option of {kind}{like}")
    words = rules["defaults"] | rules["fixed"] | words | {key: kind}
    for word in rules["defaults"].keys() - set(reading["none"]):
        if words[word] == 0 and words[word] is not False:
            raise InputError(f"{where}: {called[word]} cannot be 0")
    return {w: v for w, v in words.items() if v is not None or w not in reading["none"]}, called


def _built(words: Words, notes: list[str], where: str) -> Architecture:
    said = sheet()["families"][words["family"]].get("note")
    assumed = None if "dtype" in words else "no dtype is given: bf16 is assumed"
    every = [*words.get("notes", ()), *notes, *filter(None, (said, assumed))]
    words["notes"] = list(dict.fromkeys(every))
    if packing := words.get("quantization"):
        within = f"{where}: quantization"
        table = {"method": packing} if isinstance(packing, str) else _table(packing, within)
        words["quantization"], _ = _words(table, sheet()["quantization"], within)
    facts = {word: words.pop(word, usual) for word, usual in sheet()["facts"].items()}
    for word, usual in sheet()["facts"].items():
        if type(facts[word]) is not type(usual) or facts[word] < 0:
            raise InputError(f"`{word}` cannot be {facts[word]!r}")
    rope = _rope(words) if "rope_theta" in words else {}
    return msgspec.convert(words | {"facts": facts, "rope": rope}, Architecture)


def _rope(words: Words) -> Words:
    """Take RoPE's words and return them as transformers' `rope_parameters`, one table."""
    rope = _table(words.pop("rope", {}), "`rope`")
    if "rope_local_theta" in words and "full_attention" in rope:  # one table each, as of late
        local = _table(rope.get("sliding_attention"), "`rope`")
        words["rope_local_theta"] = local.get("rope_theta", words["rope_local_theta"])
        rope = _table(rope["full_attention"], "`rope`")
    names = ("rope_theta", "rope_local_theta", "partial_rotary_factor")
    rope = {name: words.pop(name) for name in names if name in words} | rope
    kind = rope["rope_type"] = rope.pop("type", rope.get("rope_type", "default"))
    numbers = {name: rope[name] for name in (*names, "factor") if name in rope}
    for name, value in numbers.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
            raise InputError(f"`{name}` cannot be {value!r}")
    look_up(str(kind), dict.fromkeys(sheet()["reading"]["rope_kinds"]), "`rope` of type")
    return rope


def main() -> int:
    """Print what is known of a model; return 2 if nothing is."""
    parser = argparse.ArgumentParser(prog="python -m common.model", description=main.__doc__)
    parser.add_argument("model", help="config.json, its folder, a TOML file or a catalogue's name")
    parser.add_argument("--json", action="store_true", help="for programs, by layer")
    options = parser.parse_args()
    try:
        about = _about(read(options.model))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(about, indent=2) if options.json else "\n".join(_lines(about)))
    return 0


def _about(model: Architecture) -> Words:
    parts = {"parameters": model.parameters(), "weight_bytes": model.weight_bytes()}
    about = {what: {"total": p.total} | msgspec.to_builtins(p) for what, p in parts.items()}
    about["parameters"]["active"] = model.active_parameters()
    about["kv_bytes_per_token"] = {"total": sum(model.kv_bytes()), "layers": model.kv_bytes()}
    for n in dict.fromkeys((1, model.context)):
        linear, attention = model.linear_flop().total, sum(model.attention_flop(n))
        sums = {"total": linear + attention, "linear": linear, "attention": attention}
        about[f"flop_per_token_at_context_{n}"] = sums
    return {"model": msgspec.to_builtins(model), **about}


def _lines(about: Words) -> list[str]:
    """Return one line a number; those by layer as runs of equal ones."""
    found = [f"{key}: {value}" for key, value in about["model"].items() if value]
    for what, part, value in (
        (w, p, v) for w in about if w != "model" for p, v in about[w].items()
    ):
        runs = groupby(value if part == "layers" else [value])
        text = ", ".join(f"{len(list(run))} x {n:,}" for n, run in runs)
        found.append(f"{what} {part}: {text if part == 'layers' else text[4:]}")
    return found


if __name__ == "__main__":
    sys.exit(main())
