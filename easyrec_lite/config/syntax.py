"""From text to a syntax tree with positions, without knowing the schema.

The protobuf text format is tokenised by protobuf's own Tokenizer; the descent is ours, so that it goes on after an
error and knows where everything stands.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from google.protobuf import text_format

from easyrec_lite.config.problems import Location, Problem, quote

MAX_DEPTH = 64
_CLOSER = {"{": "}", "<": ">"}


@dataclasses.dataclass(frozen=True, slots=True)
class Scalar:
    """A word, a number or a string.

    `text` is what was written; `data` the bytes of a string, None for a word or number. `loose` marks JSON, where a
    string may also stand for a number or an enum value.
    """

    text: str
    data: bytes | None
    location: Location
    loose: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """`{ ... }`: the entries in the order they were written."""

    entries: tuple[Entry, ...]
    location: Location


@dataclasses.dataclass(frozen=True, slots=True)
class ListValue:
    """`[a, b]`."""

    items: tuple[Value, ...]
    location: Location


Value = Scalar | Block | ListValue


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """`name: value`; `colon` tells whether the colon was there."""

    name: str
    value: Value
    colon: bool
    location: Location


@dataclasses.dataclass(frozen=True, slots=True)
class _Token:
    text: str
    line: int
    column: int
    indent: int  # the column of the first token of its line

    @property
    def first(self) -> bool:
        return self.column == self.indent

    @property
    def is_name(self) -> bool:
        return self.text[0].isalpha() or self.text[0] == "_"

    @property
    def is_string(self) -> bool:
        return self.text[0] in "\"'"

    @property
    def is_word(self) -> bool:
        return self.is_name or self.text[0].isdigit() or self.text[0] in "+-."


@dataclasses.dataclass(frozen=True, slots=True)
class _Opening:
    """A block being read: where it began, how far its first entry is indented."""

    name: str
    token: _Token
    inner_indent: int | None

    @property
    def closer(self) -> str:
        return _CLOSER[self.token.text]


def parse_text(text: str, file: str) -> tuple[Block, list[Problem]]:
    """Reads protobuf text format: the tree of what could be read, and every problem of its syntax."""
    parser = _Parser(_tokenize(text), file)
    return Block(parser.entries(None, 0), Location(file, 1, 1)), parser.problems


def _tokenize(text: str) -> list[_Token]:
    # Only "\n" ends a line, as in protobuf; str.splitlines() would also cut at characters such as U+2028.
    tokenizer: Any = text_format.Tokenizer(text.split("\n"))
    tokens: list[_Token] = []
    while not tokenizer.AtEnd():
        position = tokenizer.ParseError("")
        line, column = int(position.GetLine() or 1), int(position.GetColumn() or 1)
        same_line = bool(tokens) and tokens[-1].line == line
        tokens.append(_Token(tokenizer.token, line, column, tokens[-1].indent if same_line else column))
        tokenizer.NextToken()
    return tokens


class _Parser:
    def __init__(self, tokens: list[_Token], file: str):
        self.problems: list[Problem] = []
        self._tokens = tokens
        self._file = file
        self._next = 0
        opened = sum(token.text in _CLOSER for token in tokens)
        closed = sum(token.text in _CLOSER.values() for token in tokens)
        # Only where the braces of the whole file do not balance is the indentation asked which of them is wrong.
        self._missing_closers = max(0, opened - closed)
        self._stray_closers = max(0, closed - opened)

    def entries(self, opening: _Opening | None, depth: int) -> tuple[Entry, ...]:
        found: list[Entry] = []
        while True:
            token = self._peek()
            if token is None:
                if opening is not None:
                    self._report(opening.token, "the end of the file", f"a '{opening.closer}' for {opening.name}")
                break
            if token.text in _CLOSER.values():
                if opening is None:
                    self._advance()
                    self._report(token, quote(token.text), "a field", "it closes nothing: remove it")
                    continue
                if self._is_stray(token, opening):
                    self._advance()
                    self._stray_closers -= 1
                    self._report(token, quote(token.text), f"more of {opening.name}", "it closes nothing: remove it")
                    continue
                self._advance()
                if token.text != opening.closer:
                    self._report(token, quote(token.text), f"'{opening.closer}', which closes {opening.name}")
                break
            if opening is not None and self._is_outside(token, opening):
                self._missing_closers -= 1
                where = f"{opening.name}, opened in line {opening.token.line}"
                self._report(token, quote(token.text), f"'{opening.closer}' before it", f"{where}, is never closed")
                break
            if opening is not None and opening.inner_indent is None:
                opening = dataclasses.replace(opening, inner_indent=token.indent)
            entry = self._entry(depth)
            if entry is not None:
                found.append(entry)
        return tuple(found)

    def _is_stray(self, token: _Token, opening: _Opening) -> bool:
        return self._stray_closers > 0 and token.first and token.column > opening.token.indent

    def _is_outside(self, token: _Token, opening: _Opening) -> bool:
        """Whether an indented block is left without having been closed."""
        inner = opening.inner_indent
        return (
            self._missing_closers > 0
            and token.first
            and inner is not None
            and inner > opening.token.indent >= token.column
        )

    def _entry(self, depth: int) -> Entry | None:
        token = self._advance()
        if not token.is_name:
            self._report(token, quote(token.text), "the name of a field")
            if token.text == "[":
                self._skip_list(depth)
            elif token.text in _CLOSER:
                self._block("a block without a name", token, depth)
            elif self._accept(":"):
                self._value(token, depth)
            return None
        colon = self._accept(":")
        value = self._value(token, depth)
        if not self._accept(","):
            self._accept(";")
        if value is None:
            return None
        if isinstance(value, Scalar) and not colon:
            self._report(token, f"no ':' after {token.text}", f"{token.text}: {value.text}")
        return Entry(token.text, value, colon, self._at(token))

    def _value(self, name: _Token, depth: int) -> Value | None:
        token = self._peek()
        if token is None or token.text in (*_CLOSER.values(), "]", ",", ";", ":"):
            self._report(name, f"no value after {name.text}", "a value")
            return None
        if token.text in _CLOSER:
            self._advance()
            return self._block(name.text, token, depth)
        if token.text == "[":
            self._advance()
            return self._list(name, token, depth)
        if token.is_string:
            return self._string()
        if not token.is_word:
            self._advance()
            self._report(token, quote(token.text), f"a value of {name.text}")
            return None
        following = self._peek(1)
        if token.is_name and token.line > name.line and following is not None and following.text in (":", "{"):
            self._report(name, f"no value after {name.text}", "a value")
            return None
        self._advance()
        return Scalar(token.text, None, self._at(token))

    def _block(self, name: str, opening: _Token, depth: int) -> Block:
        if depth >= MAX_DEPTH:
            self._report(opening, f"blocks in blocks, {MAX_DEPTH} deep", "less deep a config")
            self._next = len(self._tokens)
            return Block((), self._at(opening))
        return Block(self.entries(_Opening(name, opening, None), depth + 1), self._at(opening))

    def _list(self, name: _Token, opening: _Token, depth: int) -> ListValue:
        items: list[Value] = []
        location = self._at(opening)
        if self._accept("]"):
            return ListValue((), location)
        while True:
            token, following = self._peek(), self._peek(1)
            broken = token is None or token.text in _CLOSER.values()
            if token is not None and token.is_name and following is not None and following.text in (":", "{", "<"):
                broken = True
            if broken or depth >= MAX_DEPTH:
                self._report(opening, f"a list of {name.text} without its end", "']'")
                break
            value = self._value(name, depth + 1)
            if value is not None:
                items.append(value)
            elif (after := self._peek()) is not None and after.text in ("]", ",", ";", ":"):
                # _value() has reported it and left it standing.
                if self._advance().text == "]":
                    break
                continue
            if self._accept("]"):
                break
            if not self._accept(","):
                token = self._peek()
                if token is not None and (token.is_string or token.is_word or token.text in _CLOSER):
                    following = self._peek(1)
                    if not (token.is_name and following is not None and following.text in (":", "{", "<")):
                        self._report(token, quote(token.text), f"',' or ']' in the list of {name.text}")
                elif token is not None and token.text not in _CLOSER.values():
                    self._advance()
                    self._report(token, quote(token.text), f"',' or ']' in the list of {name.text}")
        return ListValue(tuple(items), location)

    def _skip_list(self, depth: int) -> None:
        opening = self._tokens[self._next - 1]
        self._list(dataclasses.replace(opening, text="a list"), opening, depth)
        self._accept(":")

    def _string(self) -> Scalar:
        """One string, or several that stand side by side."""
        first = self._tokens[self._next]
        parts = []
        while (token := self._peek()) is not None and token.is_string:
            parts.append(self._advance().text)
        data = b""
        for token, part in zip(self._tokens[self._next - len(parts) :], parts, strict=False):
            try:
                data += text_format.Tokenizer([part]).ConsumeByteString()
            except (text_format.ParseError, ValueError, UnicodeError):
                unended = len(part) == 1 or part[-1] != part[0]
                hint = "its quote is never closed" if unended else "an escape in it is wrong; a backslash is '\\\\'"
                self._report(token, f"the string {part[:60]}", "a string in quotes", hint)
        return Scalar(" ".join(parts), data, self._at(first))

    def _peek(self, ahead: int = 0) -> _Token | None:
        index = self._next + ahead
        return self._tokens[index] if index < len(self._tokens) else None

    def _advance(self) -> _Token:
        token = self._tokens[self._next]
        self._next += 1
        return token

    def _accept(self, text: str) -> bool:
        token = self._peek()
        if token is None or token.text != text:
            return False
        self._next += 1
        return True

    def _at(self, token: _Token) -> Location:
        return Location(self._file, token.line, token.column)

    def _report(self, token: _Token, found: str, expected: str, hint: str = "") -> None:
        self.problems.append(Problem("", found, expected, hint).at(self._at(token)))
