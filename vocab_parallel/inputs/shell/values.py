"""What words stand for: quotes taken off, variables and arrays put in, sums worked out.

POSIX.1-2024, Shell Command Language, 2.6, and bash's arrays, `${a//b/c}`, `${a:1:2}`, `${a^^}`.
What a program would print is not known: a value that has it holds `UNKNOWN`, and who needs such a
value refuses it.
"""

import re
from collections.abc import Callable
from fnmatch import translate
from pathlib import Path

from common.errors import InputError
from vocab_parallel.inputs.shell.arithmetic import whole

UNKNOWN = "\ue000"
"""Stands before and after a command whose output was not taken."""

_MARK = "\ue001"
"""Stands around blanks and empty words that quotes keep together."""


class Variables:
    """A script's variables, each a list of values, and the names that had none when asked for."""

    def __init__(self, positional: tuple[str, ...] = ()) -> None:
        self.values: dict[str, list[str]] = {"0": ["script"]}
        self.positional = list(positional)
        self.missing: dict[str, None] = {}

    def get(self, name: str) -> list[str] | None:
        """Return a variable's values; None where it was never set."""
        if name in "@*":
            return self.positional
        if name == "#":
            return [str(len(self.positional))]
        if name.isdigit() and name != "0":
            place = int(name) - 1
            found = self.positional[place : place + 1] or None
        else:
            found = self.values.get(
                name, {"$": ["1"], "?": ["0"], "PWD": [str(Path.cwd())]}.get(name)
            )
        if found is None:
            self.missing[name] = None
        return found

    def set(self, name: str, values: list[str], *, append: bool = False) -> None:
        """Set a variable, or add to it."""
        self.values[name] = [*self.values.get(name, ()), *values] if append else values


class Expander:
    """Expands words by a script's variables; `output` gives what a command prints."""

    def __init__(self, variables: Variables, output: Callable[[str], str]) -> None:
        self.variables, self.output = variables, output

    def words(self, raw: str) -> list[str]:
        """Return the words that a word becomes: none, one or several."""
        spread = self._expand(raw, quoted=False, splits=True)
        return [_plain(part) for part in re.split(r"[ \t\n]+", spread) if part]

    def text(self, raw: str) -> str:
        """Return a word's value where it is not split, as in assignments."""
        return _plain(self._expand(raw, quoted=False, splits=False))

    def number(self, text: str) -> int:
        """Return the value of an arithmetic expression; names stand for their variables."""
        plain = _plain(self._expand(text, quoted=True, splits=False))

        def value(match: re.Match[str]) -> str:
            found = self.variables.get(match[0])
            return (found or ["0"])[0] or "0"

        return whole(re.sub(r"[A-Za-z_]\w*", value, plain))

    def _expand(self, raw: str, *, quoted: bool, splits: bool) -> str:
        made: list[str] = []
        at = 0
        while at < len(raw):
            character = raw[at]
            if character == "\\":
                literal = quoted and raw[at + 1 : at + 2] not in ('"', "$", "`", "\\")
                made.append(_kept(raw[at + (not literal) : at + 2]))
                at += 2
            elif character == "'" and not quoted:
                end = raw.index("'", at + 1)
                made.append(_kept(raw[at + 1 : end]))
                at = end + 1
            elif character == '"' and not quoted:
                end = _closing(raw, at, '"')
                made.append(self._in_quotes(raw[at + 1 : end], splits=splits))
                at = end + 1
            elif character == "`":
                end = _closing(raw, at, "`")
                made.append(_held(self.output(raw[at + 1 : end]), quoted))
                at = end + 1
            elif character == "$":
                value, at = self._dollar(raw, at, quoted=quoted, splits=splits)
                made.append(value)
            else:
                made.append(_kept(character) if quoted else character)
                at += 1
        return "".join(made)

    def _in_quotes(self, inside: str, *, splits: bool) -> str:
        """Expand what stands in double quotes: one word, but for `"${a[@]}"`."""
        alone = re.fullmatch(r"\$(?:(@)|\{(@|\w+\[@\])\})", inside)
        if alone and splits:
            return " ".join(
                _MARK + _kept(item) for item in self._values(alone[1] or alone[2]) or ()
            )
        return _MARK + self._expand(inside, quoted=True, splits=False)

    def _dollar(self, raw: str, at: int, *, quoted: bool, splits: bool) -> tuple[str, int]:
        """Expand what a $ begins; return it and the place behind."""
        if raw.startswith("$((", at) and (end := _bracket(raw, at + 1)) and raw[end - 1] == ")":
            return str(self.number(raw[at + 3 : end - 1])), end + 1
        if raw.startswith("$(", at):
            end = _bracket(raw, at + 1)
            return _held(self.output(raw[at + 2 : end]), quoted), end + 1
        if raw.startswith("${", at):
            end = _bracket(raw, at + 1)
            return self._parameter(raw[at + 2 : end], quoted=quoted), end + 1
        if raw.startswith("$'", at) and not quoted:
            end = raw.index("'", at + 2)
            return _kept(raw[at + 2 : end]), end + 1
        name = re.compile(r"[A-Za-z_]\w*|[0-9@*#?$!-]").match(raw, at + 1)
        if name is None:
            return "$", at + 1
        values = self._values(name[0])
        return _held(" ".join(values or ()), quoted), name.end()

    def _values(self, name: str) -> list[str] | None:
        """Return the values that `a`, `a[@]`, `a[2]` or `@` stand for."""
        found = re.fullmatch(r"(\w+)\[(.*)\]", name)
        if found is None:
            values = self.variables.get(name)
            return values if name in "@*" or not values else values[:1]
        values = self.variables.get(found[1])
        if found[2] in ("@", "*") or values is None:
            return values
        return values[self.number(found[2]) :][:1] or None

    def _parameter(self, inside: str, *, quoted: bool) -> str:
        """Expand `${...}`."""
        if counted := re.fullmatch(r"#(\w+)(\[[@*]\])?", inside):
            values = self._values(counted[1] + (counted[2] or "")) or []
            return str(len(values) if counted[2] else len(values[0]) if values else 0)
        if indirect := re.fullmatch(r"!(\w+)", inside):
            inside = self.text(f"${indirect[1]}")
        match = re.match(r"(\w+(?:\[[^\]]*\])?|[@*#?])", inside)
        if match is None:
            raise InputError(f"${{{inside}}} is not read here; write its value")
        name, rest = match[0], inside[match.end() :]
        known = dict(self.variables.missing)
        values = self._values(name)
        if rest[:1] in (":", "-", "=", "+", "?") and not re.match(r":\s*[\d(]", rest):
            operator, default = rest[: 1 + (rest[0] == ":")], rest[1 + (rest[0] == ":") :]
            if operator.strip(":") in ("-", "="):
                self.variables.missing = known  # the script says what then
            return self._default(name, values, operator, default, quoted=quoted)
        return _held(self._changed(" ".join(values or ()), rest), quoted)

    def _default(
        self, name: str, values: list[str] | None, operator: str, default: str, *, quoted: bool
    ) -> str:
        there = values is not None and (operator[0] != ":" or any(values))
        if operator[-1] == "+":
            return self._expand(default, quoted=quoted, splits=not quoted) if there else ""
        if there and values is not None:
            return _held(" ".join(values), quoted)
        if operator[-1] == "?":
            raise InputError(f"${name} is not set, which the script asks for; set it there")
        if operator[-1] == "=":
            self.variables.set(name, [self.text(default)])
        return self._expand(default, quoted=quoted, splits=not quoted)

    def _changed(self, value: str, rest: str) -> str:
        """Return a value with a part cut off or replaced, as what follows its name says."""
        if not rest:
            return value
        if rest in ("^^", ",,"):
            return value.upper() if rest == "^^" else value.lower()
        if cut := re.fullmatch(r":([^:]+)(?::(.+))?", rest):
            begin = self.number(cut[1])
            value = value[begin:]
            return value[: self.number(cut[2])] if cut[2] else value
        if swapped := re.fullmatch(r"(//?)((?:[^/\\]|\\.)+)/?(.*)", rest):
            pattern = _shortest(self.text(swapped[2]), greedy=True)
            new = self.text(swapped[3])
            return re.sub(pattern, lambda _: new, value, count=len(swapped[1]) % 2)
        if ends := re.fullmatch(r"(##?|%%?)(.*)", rest, re.DOTALL):
            return _without_end(value, ends[1], self.text(ends[2]))
        raise InputError(f"${{...{rest}}} is not read here; write its value")


_BLANKS = {" ": "\ue002", "\n": "\ue003", "\t": "\ue004"}
"""Blanks in quotes, which separate nothing."""
_TO_KEPT = str.maketrans(_BLANKS)
_TO_PLAIN = str.maketrans({kept: blank for blank, kept in _BLANKS.items()} | {_MARK: ""})
_HIDDEN = 0xE100
"""Where the characters of what is not known begin, so that no reader finds words in them."""
MARKS = frozenset(map(chr, range(0xE000, _HIDDEN + 128)))
"""Characters that no script may have itself."""


def unknown(command: str) -> str:
    """Return the value that stands for what a command would print."""
    return UNKNOWN + "".join(chr(_HIDDEN + ord(c) % 128) for c in command.strip()) + UNKNOWN


def told(value: str) -> str:
    """Return a value for a message: what is not known as the command in backquotes."""
    shown = (chr(ord(c) - _HIDDEN) if _HIDDEN <= ord(c) < _HIDDEN + 128 else c for c in value)
    return "".join(shown).replace(UNKNOWN, "`")


def _kept(text: str) -> str:
    return _MARK + text.translate(_TO_KEPT)


def _plain(text: str) -> str:
    return text.translate(_TO_PLAIN)


def _held(text: str, quoted: bool) -> str:
    return _kept(text) if quoted else text


def _closing(raw: str, begin: int, mark: str) -> int:
    """Return where a double quote or backquote ends."""
    at = begin + 1
    while at < len(raw) and raw[at] != mark:
        if raw[at] == "\\":
            at += 2
        elif raw.startswith(("$(", "${"), at):
            at = _bracket(raw, at + 1) + 1
        else:
            at += 1
    return at


def _bracket(raw: str, begin: int) -> int:
    """Return where the bracket at a place is closed."""
    opening, depth, at = raw[begin], 1, begin
    closing = {"(": ")", "{": "}"}[opening]
    while depth:
        at += 1
        if at >= len(raw):
            raise InputError(f"{raw!r}: a {opening} is not closed")
        if raw[at] == "\\":
            at += 1
        elif raw[at] == "'" and opening == "(" and "'" in raw[at + 1 :]:
            at = raw.index("'", at + 1)
        elif raw[at] == '"':
            at = _closing(raw, at, '"')
        else:
            depth += (raw[at] == opening) - (raw[at] == closing)
    return at


def _shortest(pattern: str, *, greedy: bool) -> str:
    """Return a shell pattern as a regular expression."""
    made = translate(pattern)
    inside = made[4 : made.rindex(")")]  # (?s:...)\Z
    return inside if greedy else inside.replace(".*", ".*?")


def _without_end(value: str, operator: str, pattern: str) -> str:
    """Cut a pattern off a value's front (#) or back (%), the shortest or (doubled) the longest."""
    lengths = [*range(len(value) + 1)]
    if len(operator) == 2:
        lengths.reverse()
    regex = re.compile(_shortest(pattern, greedy=True), re.DOTALL)
    for length in lengths:
        if operator[0] == "#" and regex.fullmatch(value[:length]):
            return value[length:]
        if operator[0] == "%" and regex.fullmatch(value[len(value) - length :]):
            return value[: len(value) - length]
    return value
