"""From JSON to the syntax tree of syntax.py, with positions."""

from __future__ import annotations

import json
import re

from easyrec_lite.config.problems import Location, Problem
from easyrec_lite.config.syntax import MAX_DEPTH, Block, Entry, ListValue, Scalar, Value

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')


def parse_json(text: str, file: str) -> tuple[Block, list[Problem]]:
    """Reads a JSON object; of broken JSON only the first error is known."""
    empty = Block((), Location(file, 1, 1))
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return empty, [Problem("", error.msg, "JSON", file=file, line=error.lineno, column=error.colno)]
    except (RecursionError, ValueError) as error:  # ValueError: a number of thousands of digits
        return empty, [Problem("", f"JSON that cannot be read: {error}", "JSON", file=file, line=1)]
    try:
        value = _Reader(text, file).value(0)
    except RecursionError:
        return empty, [Problem("", f"JSON nested more than {MAX_DEPTH} deep", "less deep a config", file=file, line=1)]
    if not isinstance(value, Block):
        return empty, [Problem("", "JSON that is no object", "{...}", file=file, line=1, column=1)]
    return value, []


def parse_json_value(text: str, file: str) -> Value | None:
    """Reads one JSON value that json.dumps wrote; None for null."""
    return _Reader(text, file).value(0)


class _Reader:
    """Reads JSON that json.loads has accepted."""

    def __init__(self, text: str, file: str):
        self._file = file
        self._tokens = list(_TOKEN.finditer(text))
        self._text = text
        self._next = 0
        self._line, self._counted = 1, 0

    def value(self, depth: int) -> Value | None:
        """The next value; None for null."""
        if depth > MAX_DEPTH:
            raise RecursionError
        token, location = self._take()
        if token == "{":
            entries = []
            while self._peek() != "}":
                name, at = self._take()
                self._take()  # the colon
                entry_value = self.value(depth + 1)
                if entry_value is not None:
                    entries.append(Entry(json.loads(name), entry_value, True, at))
                if self._peek() == ",":
                    self._take()
            self._take()
            return Block(tuple(entries), location)
        if token == "[":
            items = []
            while self._peek() != "]":
                item = self.value(depth + 1)
                if item is not None:
                    items.append(item)
                if self._peek() == ",":
                    self._take()
            self._take()
            return ListValue(tuple(items), location)
        if token == "null":
            return None
        if token.startswith('"'):
            return Scalar(token, json.loads(token).encode("utf-8", "surrogatepass"), location, loose=True)
        return Scalar(token, None, location, loose=True)

    def _peek(self) -> str:
        return self._tokens[self._next].group()

    def _take(self) -> tuple[str, Location]:
        match = self._tokens[self._next]
        self._next += 1
        start = match.start()
        self._line += self._text.count("\n", self._counted, start)
        newline = self._text.rfind("\n", 0, start)
        self._counted = start
        return match.group(), Location(self._file, self._line, start - newline)
