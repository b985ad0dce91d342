"""A script carried out as far as its words go: which commands it would start, with which words.

No program is run. `eval`, `bash -c` and `sh -c` of a text, functions and sourced files are
followed; `exit` is passed over, because what scripts check before it (files, commands) is that
machine's affair.
"""

import re
import shlex
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from common.errors import InputError
from vocab_parallel.inputs.shell.conditions import holds
from vocab_parallel.inputs.shell.syntax import (
    Block,
    Cases,
    Chosen,
    Command,
    Function,
    Group,
    Joined,
    Loop,
    Negated,
    Repeated,
    Simple,
    commands,
)
from vocab_parallel.inputs.shell.tokens import Token, tokens
from vocab_parallel.inputs.shell.values import UNKNOWN, Expander, Variables, unknown

_DECLARING = frozenset({"export", "local", "readonly", "declare", "typeset"})
_SHELLS = frozenset({"bash", "sh", "/bin/bash", "/bin/sh"})
_SETTING = frozenset({"shift", "set", "unset", "let", "mapfile", "readarray", "getopts", "printf"})
_DEEPEST = 20
_MOST_TURNS = 1000


class Started(NamedTuple):
    """A command that a script starts, its words expanded."""

    words: tuple[str, ...]
    line: int


class Script:
    """What a script starts, in order, and its variables afterwards."""

    def __init__(self, text: str, folder: Path, given: dict[str, str] | None = None) -> None:
        self.folder, self.depth = folder, 0
        self.variables = Variables()
        for name, value in (given or {}).items():
            self.variables.set(name, [value])
        self.expander = Expander(self.variables, self._output)
        self.functions: dict[str, Block] = {}
        self.started: list[Started] = []
        self._run(commands(text))

    def _run(self, block: Block) -> bool:
        """Carry out commands and return whether the last one succeeded."""
        fine = True
        for operator, command in block:
            if (operator == "&&" and not fine) or (operator == "||" and fine):
                continue
            fine = self._carry_out(command)
        return fine

    def _carry_out(self, command: Command) -> bool:
        match command:
            case Simple():
                return self._simple(command)
            case Chosen():
                return self._chosen(command)
            case Cases():
                return self._cases(command)
            case Loop():
                return self._loop(command)
            case Repeated():
                return self._repeated(command)
            case Function(name, body):
                self.functions[name] = body
                return True
            case Negated(inner):
                return not self._condition((Joined(";", inner),))
            case Group(body):
                return self._run(body)

    def _chosen(self, command: Chosen) -> bool:
        for condition, body in command.branches:
            if not condition or self._condition(condition):
                return self._run(body)
        return True

    def _loop(self, command: Loop) -> bool:
        for word in [item for raw in command.words for item in self.expander.words(raw)]:
            self.variables.set(command.name, [word])
            self._run(command.body)
        return True

    def _repeated(self, command: Repeated) -> bool:
        for _ in range(_MOST_TURNS):
            if self._condition(command.condition) != command.holds:
                return True
            self._run(command.body)
        raise InputError(f"line {command.line}: `while` does not end in {_MOST_TURNS} turns")

    def _condition(self, block: Block) -> bool:
        """Return whether commands that decide something succeed; a program's is not known."""
        before = len(self.started)
        fine = self._run(block)
        if len(self.started) > before and self.started[-1].words[0] not in ("true", "false"):
            words, line = self.started[-1]
            raise InputError(
                f"line {line}: whether `{shlex.join(words)}` succeeds is not known here"
            )
        return fine

    def _cases(self, command: Cases) -> bool:
        word = self.expander.text(command.word)
        if UNKNOWN in word:
            raise InputError(f"line {command.line}: `case` asks what a program prints")
        for patterns, body in command.branches:
            if any(fnmatchcase(word, self.expander.text(pattern)) for pattern in patterns):
                return self._run(body)
        return True

    def _simple(self, command: Simple) -> bool:
        try:
            return self._words(command)
        except InputError as error:
            text = str(error)
            known = text.startswith("line ")
            raise InputError(text if known else f"line {command.line}: {text}") from error

    def _words(self, command: Simple) -> bool:
        if command.test:
            return holds([self._operand(token) for token in command.tokens])
        left = list(command.tokens)
        while left and self._assigned(left[0]):
            left.pop(0)
        if not left:
            return True
        if left[0].kind == "arithmetic":
            return self.expander.number(left[0].text) != 0
        if left[0].text in _DECLARING:
            return self._declared(left[1:])
        words = [word for token in left for word in self.expander.words(token.text)]
        return self._command(words, command.line) if words else True

    def _operand(self, token: Token) -> str:
        return token.text if token.kind == "operator" else self.expander.text(token.text)

    def _declared(self, left: Sequence[Token]) -> bool:
        for token in left:
            if token.text.startswith("-") and "A" in token.text:
                raise InputError("arrays with names for places (declare -A) are not read")
            if not token.text.startswith("-") and not self._assigned(token):
                self.expander.words(token.text)
        return True

    def _assigned(self, token: Token) -> bool:
        """Carry out an assignment; return False where a token is none."""
        name, equals, value = token.text.partition("=")
        place = None
        if name.endswith("]") and "[" in name:
            name, _, inside = name.partition("[")
            place = inside[:-1]
        append = name.endswith("+")
        name = name.removesuffix("+")
        if not equals or token.kind == "arithmetic" or not name.isidentifier():
            return False
        if token.kind == "array":
            if any(re.match(r"\[[^]]+\]=", raw) for raw in token.items):
                raise InputError(f"{name}: places inside an array ([2]=x) are not read")
            items = [word for raw in token.items for word in self.expander.words(raw)]
            self.variables.set(name, items, append=append)
        elif place is not None:
            self._put(name, self.expander.number(place), self.expander.text(value))
        else:
            before = "".join((self.variables.values.get(name) or [""])[:1]) if append else ""
            rest = self.variables.values.get(name, [])[1:] if append else []
            self.variables.set(name, [before + self.expander.text(value), *rest])
        return True

    def _put(self, name: str, place: int, value: str) -> None:
        values = list(self.variables.values.get(name, []))
        values += [""] * (place + 1 - len(values))
        values[place] = value
        self.variables.set(name, values)

    def _command(self, words: list[str], line: int) -> bool:
        first, rest = words[0], words[1:]
        if first in ("[", "test"):
            return holds(rest[:-1] if first == "[" else rest)
        if first in ("source", "."):
            return self._source(rest)
        if first == "eval":
            return self._inside(" ".join(rest), line)
        if first in _SETTING:
            return self._set(first, rest)
        if first in self.functions:
            before, self.variables.positional = self.variables.positional, rest
            fine = self._nested(self.functions[first], line)
            self.variables.positional = before
            return fine
        if first == "false":
            return False
        for place, word in enumerate(words[:-2]):
            if word in _SHELLS and words[place + 1].startswith("-") and "c" in words[place + 1]:
                return self._inside(words[place + 2], line, tuple(words[:place]))
        self.started.append(Started(tuple(words), line))
        return True

    def _set(self, builtin: str, words: list[str]) -> bool:
        """Carry out a builtin that changes variables; refuse one whose values come from outside."""
        match builtin:
            case "shift":
                count = int(words[0]) if words and words[0].isdigit() else 1
                del self.variables.positional[:count]
            case "set":
                if "--" in words:
                    self.variables.positional = words[words.index("--") + 1 :]
            case "unset":
                for name in words:
                    self.variables.values.pop(name, None)
            case "let":
                for word in words:
                    name, _, value = word.partition("=")
                    if not name.isidentifier():
                        raise InputError(f"`let {word}` is not read; write name=value")
                    self.variables.set(name, [str(self.expander.number(value))])
            case _:
                if builtin != "printf" or words[:1] == ["-v"]:
                    raise InputError(f"`{builtin}` sets what is not known here; write the value")
        return True

    def _inside(self, text: str, line: int, launcher: tuple[str, ...] = ()) -> bool:
        """Carry out a text that a command is given; its commands begin with what starts it."""
        before = len(self.started)
        fine = self._nested(commands(text), line)
        inner = self.started[before:]
        self.started[before:] = [Started((*launcher, *item.words), line) for item in inner]
        return fine

    def _nested(self, block: Block, line: int) -> bool:
        if self.depth == _DEEPEST:
            raise InputError(f"line {line}: calls itself without end")
        self.depth += 1
        fine = self._run(block)
        self.depth -= 1
        return fine

    def _source(self, words: list[str]) -> bool:
        """Carry out a file of assignments where it is there."""
        for folder in (Path(), self.folder):
            if words and (path := folder / words[0]).is_file():
                return self._inside(path.read_text(errors="replace"), 0)
        return True

    def _output(self, text: str) -> str:
        """Return what a command prints, where that needs no program; else it is unknown."""
        try:
            found = [token for token in tokens(text) if token.text != "\n"]
        except InputError:
            return unknown(text)
        if not found or any(token.kind != "word" for token in found):
            return unknown(text)
        match [word for token in found for word in self.expander.words(token.text)]:
            case ["pwd"]:
                return str(Path.cwd())
            case ["echo", *words] if not words or not words[0].startswith("-"):
                return " ".join(words)
            case ["dirname", name]:
                return str(Path(name).parent)
            case ["basename", name]:
                return Path(name).name
            case ["expr", *words]:
                return str(self.expander.number(" ".join(words)))
            case _:
                return unknown(text)
