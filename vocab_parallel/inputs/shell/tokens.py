"""A shell script as tokens: words with their quotes still on, array assignments, operators.

POSIX.1-2024, Shell Command Language, 2.2 (quoting) and 2.3 (token recognition), and bash's arrays.
"""

import re
from typing import Literal, NamedTuple

from common.errors import InputError

_OPERATORS = (
    *("&>>", "<<<", "<<-", ";;", "&&", "||", ">>", "<<", ">&", "<&", "&>", ">|"),
    *("\n", ";", "&", "|", "(", ")", "<", ">"),
)
_ENDS = " \t\n;&|()<>"
_CLOSING = {"(": ")", "{": "}"}


class Token(NamedTuple):
    """A word as written, an operator, `((...))`, or an assignment of an array's words."""

    kind: Literal["word", "operator", "arithmetic", "array"]
    text: str
    line: int
    items: tuple[str, ...] = ()


def tokens(text: str) -> list[Token]:
    """Return a script's tokens; raises InputError where a quote or bracket is not closed."""
    return _Lexer(text.replace("\r\n", "\n").replace("\\\n", _JOINED)).all()


_JOINED = "\x00"
"""A line that goes on in the next one; kept as a character so that lines can be counted."""


class _Lexer:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.here: list[str] = []
        """Delimiters of here-documents that begin at the next line."""

    @property
    def line(self) -> int:
        return 1 + self.text.count("\n", 0, self.at) + self.text.count(_JOINED, 0, self.at)

    def all(self) -> list[Token]:
        found: list[Token] = []
        while (token := self.next()) is not None:
            if found and found[-1].text == "<<" and found[-1].kind == "operator":
                self.here.append(re.sub(r"[\"'\\]", "", token.text))
            redirects = token.kind == "operator" and token.text[0] in "<>"
            if redirects and found and found[-1].text.isdigit() and self.glued(token):
                found.pop()  # the number of a file, as in 2>
            found.append(token)
        return found

    def glued(self, token: Token) -> bool:
        """Say whether an operator that was just read follows its word without a blank."""
        before = self.at - len(token.text) - 1
        return before >= 0 and self.text[before] not in _ENDS

    def next(self) -> Token | None:
        self.blanks()
        if self.at >= len(self.text):
            return None
        line = self.line
        if self.text.startswith("((", self.at):
            inside = self.bracketed()
            if inside.startswith("((") and inside.endswith("))"):
                return Token("arithmetic", inside[2:-2], line)
            self.at -= len(inside)
        for operator in _OPERATORS:
            if self.text.startswith(operator, self.at) and not self.text.startswith("<(", self.at):
                self.at += len(operator)
                if operator == "\n":
                    self.skip_documents()
                return Token("operator", "<<" if operator == "<<-" else operator, line)
        return self.word(line)

    def blanks(self) -> None:
        while self.at < len(self.text):
            if self.text[self.at] in f" \t{_JOINED}":
                self.at += 1
            elif self.text[self.at] == "#":
                ends = re.compile(f"[\n{_JOINED}]").search(self.text, self.at)
                self.at = ends.start() if ends else len(self.text)
                if ends and ends[0] == _JOINED:  # a comment's backslash joins nothing
                    self.text = f"{self.text[: self.at]}\n{self.text[self.at + 1 :]}"
            else:
                return

    def skip_documents(self) -> None:
        while self.here:
            delimiter = self.here.pop(0)
            rest = self.text[self.at :].replace(_JOINED, "\n")
            ends = re.search(rf"^\t*{re.escape(delimiter)}$", rest, re.MULTILINE)
            self.at = self.at + ends.end() if ends else len(self.text)

    def word(self, line: int) -> Token:
        begin, said = self.at, ""
        while self.at < len(self.text) and self.text[self.at] not in _ENDS:
            place = self.at
            self.piece()
            quoted = self.text[place] == "'"  # keeps a backslash and the line's end behind it
            said += self.text[place : self.at].replace(_JOINED, "\\\n" if quoted else "")
            if self.text.startswith("(", self.at) and re.fullmatch(r"[A-Za-z_]\w*\+?=", said):
                return Token("array", said, line, self.elements(line))
        if self.at == begin:  # <( ... )
            self.at += 1
            said = f"<{self.bracketed()}"
        return Token("word", said, line)

    def piece(self) -> None:
        """Go over one character, or all that belongs together by quotes or brackets."""
        text, at = self.text, self.at
        if text[at] == "\\":
            self.at += 2
        elif text[at] == "'":
            self.at = self.closing("'", at + 1) + 1
        elif text[at] in '"`':
            self.quoted(text[at])
        elif text[at] == "$" and text[at + 1 : at + 2] in ("(", "{"):
            self.at += 1
            self.bracketed()
        else:
            self.at += 1

    def quoted(self, mark: str) -> None:
        line = self.line
        self.at += 1
        while self.at < len(self.text) and self.text[self.at] != mark:
            if self.text[self.at] == "'":
                self.at += 1  # means itself inside double quotes
            else:
                self.piece()
        if self.at >= len(self.text):
            raise InputError(f"line {line}: a {mark} is not closed")
        self.at += 1

    def bracketed(self) -> str:
        """Go over a bracket to the one that closes it and return both and what is inside."""
        begin, line, opening = self.at, self.line, self.text[self.at]
        self.at += 1
        depth = 1
        while depth and self.at < len(self.text):
            character = self.text[self.at]
            depth += (character == opening) - (character == _CLOSING[opening])
            if character in "\"'\\$`":
                self.piece()
            else:
                self.at += 1
        if depth:
            raise InputError(f"line {line}: a {opening} is not closed")
        return self.text[begin : self.at]

    def closing(self, mark: str, begin: int) -> int:
        found = self.text.find(mark, begin)
        if found < 0:
            raise InputError(f"line {self.line}: a {mark} is not closed")
        return found

    def elements(self, line: int) -> tuple[str, ...]:
        """Return the words of an array; comments and line ends between them are skipped."""
        self.at += 1
        found: list[str] = []
        while (token := self.next()) is not None:
            if token.text == ")" and token.kind == "operator":
                return tuple(found)
            if token.kind == "word":
                found.append(token.text)
            elif token.text != "\n":
                raise InputError(f"line {token.line}: {token.text!r} inside an array")
        raise InputError(f"line {line}: the ( of an array is not closed")
