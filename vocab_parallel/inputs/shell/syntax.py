"""Tokens as commands: simple ones, lists joined by && and ||, if, case, for, functions, groups."""

from __future__ import annotations

from typing import NamedTuple

from common.errors import InputError
from vocab_parallel.inputs.shell.tokens import Token, tokens

_ENDINGS = frozenset({"then", "elif", "else", "fi", "do", "done", "esac", "}"})
_UNREAD = frozenset({"select", "coproc"})


class Simple(NamedTuple):
    """Assignments and a command's words, as written; `test` where it stands in [[ ]]."""

    tokens: tuple[Token, ...]
    line: int
    test: bool = False


class Joined(NamedTuple):
    """A command that is carried out after the one before by `&&`, `||`, `|` or `;`."""

    operator: str
    command: Command


class Chosen(NamedTuple):
    """`if`: conditions with what follows from each; the last, of `else`, has none."""

    branches: tuple[tuple[Block, Block], ...]


class Cases(NamedTuple):
    """`case`: a word and the blocks of its patterns."""

    word: str
    branches: tuple[tuple[tuple[str, ...], Block], ...]
    line: int


class Loop(NamedTuple):
    """`for`: a name that takes one word after the other."""

    name: str
    words: tuple[str, ...]
    body: Block
    line: int


class Repeated(NamedTuple):
    """`while` (or `until`): a body as long as a condition holds (or does not)."""

    condition: Block
    body: Block
    holds: bool
    line: int


class Function(NamedTuple):
    """A named block."""

    name: str
    body: Block


class Negated(NamedTuple):
    """`! command`."""

    command: Command


class Group(NamedTuple):
    """`{ ... }` or `( ... )`."""

    body: Block


Block = tuple[Joined, ...]
Command = Simple | Chosen | Cases | Loop | Repeated | Function | Negated | Group


def commands(text: str) -> Block:
    """Return a script's commands; raises InputError where it is none that can be read."""
    parser = _Parser(tokens(text))
    block = parser.block()
    if parser.at < len(parser.tokens):
        token = parser.tokens[parser.at]
        raise InputError(f"line {token.line}: {token.text!r} without its beginning")
    return block


class _Parser:
    def __init__(self, found: list[Token]) -> None:
        self.tokens, self.at = found, 0

    def peek(self, ahead: int = 0) -> str:
        """Return the text of a token to come; empty at the end."""
        place = self.at + ahead
        return self.tokens[place].text if place < len(self.tokens) else ""

    def skip(self, *texts: str) -> None:
        while self.peek() in texts and self.at < len(self.tokens):
            self.at += 1

    def expect(self, text: str, what: str, line: int) -> None:
        self.skip("\n", ";")
        if self.peek() != text:
            raise InputError(f"line {line}: {what} without {text}")
        self.at += 1

    def block(self) -> Block:
        """Return commands up to a word that ends what they are inside of."""
        found: list[Joined] = []
        operator = ";"
        self.skip("\n", ";", "&")
        while self.at < len(self.tokens) and self.peek() not in _ENDINGS | {")", ";;"}:
            found.append(Joined(operator, self.command()))
            operator = self.peek() if self.peek() in ("&&", "||", "|") else ";"
            if operator != ";":
                self.at += 1
            self.skip("\n", ";", "&")
        return tuple(found)

    def command(self) -> Command:
        if self.at >= len(self.tokens):
            raise InputError("the script ends where a command was expected")
        token = self.tokens[self.at]
        if token.kind == "word" and token.text in _UNREAD:
            raise InputError(
                f"line {token.line}: `{token.text}` is not read; write out what it does"
            )
        makers = {"if": self.chosen, "case": self.cases, "for": self.loop, "!": self.negated}
        makers |= {"{": self.group, "(": self.group, "function": self.function}
        makers |= {"while": self.repeated, "until": self.repeated}
        if token.text in makers and token.kind in ("word", "operator"):
            self.at += 1
            return makers[token.text](token.line)
        if self.peek(1) == "(" and self.peek(2) == ")" and token.kind == "word":
            return self.function(token.line)
        return self.simple(token)

    def negated(self, line: int) -> Command:
        return Negated(self.command())

    def group(self, line: int) -> Command:
        closing = {"{": "}", "(": ")"}[self.tokens[self.at - 1].text]
        body = self.block()
        self.expect(closing, "a group", line)
        return Group(body)

    def function(self, line: int) -> Command:
        name = self.peek()
        self.at += 1
        self.skip("(", ")", "\n")
        self.expect("{", f"function {name}", line)
        body = self.block()
        self.expect("}", f"function {name}", line)
        return Function(name, body)

    def chosen(self, line: int) -> Command:
        branches: list[tuple[Block, Block]] = []
        condition = self.block()
        self.expect("then", "`if`", line)
        branches.append((condition, self.block()))
        while self.peek() == "elif":
            self.at += 1
            condition = self.block()
            self.expect("then", "`elif`", line)
            branches.append((condition, self.block()))
        if self.peek() == "else":
            self.at += 1
            branches.append(((), self.block()))
        self.expect("fi", "`if`", line)
        return Chosen(tuple(branches))

    def cases(self, line: int) -> Command:
        word = self.peek()
        self.at += 1
        self.expect("in", "`case`", line)
        branches: list[tuple[tuple[str, ...], Block]] = []
        self.skip("\n", "(")
        while self.peek() != "esac" and self.at < len(self.tokens):
            patterns = [self.peek()]
            self.at += 1
            while self.peek() == "|":
                patterns.append(self.peek(1))
                self.at += 2
            self.expect(")", "a pattern of `case`", line)
            branches.append((tuple(patterns), self.block()))
            self.skip(";;", "\n", "(")
        self.expect("esac", "`case`", line)
        return Cases(word, tuple(branches), line)

    def loop(self, line: int) -> Command:
        name = self.peek()
        self.at += 1
        self.expect("in", f"`for {name}`", line)
        words: list[str] = []
        while self.at < len(self.tokens) and self.tokens[self.at].kind == "word":
            words.append(self.peek())
            self.at += 1
        self.expect("do", "`for`", line)
        body = self.block()
        self.expect("done", "`for`", line)
        return Loop(name, tuple(words), body, line)

    def repeated(self, line: int) -> Command:
        word = self.tokens[self.at - 1].text
        condition = self.block()
        self.expect("do", f"`{word}`", line)
        body = self.block()
        self.expect("done", f"`{word}`", line)
        return Repeated(condition, body, word == "while", line)

    def simple(self, first: Token) -> Command:
        if first.text == "[[":
            return self.double_bracket(first.line)
        found: list[Token] = []
        begin = self.at
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            if token.kind == "operator":
                if token.text[-1:] not in "<>&" or token.text in ("&", "&&"):
                    break
                self.at += 2  # a redirection and the file that it names
                continue
            found.append(token)
            self.at += 1
        if self.at == begin:
            raise InputError(f"line {first.line}: {first.text!r} where a command was expected")
        return Simple(tuple(found), first.line)

    def double_bracket(self, line: int) -> Command:
        self.at += 1
        found: list[Token] = []
        while self.at < len(self.tokens) and self.peek() != "]]":
            found.append(self.tokens[self.at])
            self.at += 1
        self.expect("]]", "[[", line)
        return Simple(tuple(found), line, test=True)
