"""One path grammar for errors, overrides and search spaces.

    features[user_id].embedding_dim              the item of a list by its effective name
    features["a name with [odd] characters"]     in quotes where it would be read as something else
    model_config.feature_groups[0], [-1]         by index
    features[1:3], features[*], features[:]      several at once
    features[feature_type=IdFeature]             by the value of a field; also == != < <= > >=
    features[input_names[0]=age].embedding_dim   the field may be a path itself
    model_config.model_params.params.units[0]    into a Struct, by name and index

Paths name the canonical form. EasyRec's own, `feature_configs[...]` and `feature_config.features[...]`, are
translated.
"""

from __future__ import annotations

import dataclasses
import re
from typing import NoReturn

from easyrec_lite.config.problems import ConfigError, Problem, quote

_OPERATOR = re.compile(r"==|!=|>=|<=|=|>|<")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SLICE = re.compile(r"(-?\d+)?:(-?\d+)?")
_FEATURES = re.compile(r"^(feature_configs|feature_config\.features)(?![A-Za-z0-9_])")
# Where the canonical form keeps what EasyRec spells differently.
_TRANSLATED = {
    ("feature_config", "features"): ("features",),
    ("feature_configs",): ("features",),
    ("parquet_train_input",): ("train_input_path",),
    ("parquet_eval_input",): ("eval_input_path",),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """`[name]`."""

    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Index:
    """`[0]`."""

    value: int


@dataclasses.dataclass(frozen=True, slots=True)
class Span:
    """`[1:3]`, `[:]`, `[*]`."""

    start: int | None
    stop: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class Filter:
    """`[field>=value]`."""

    path: Path
    operator: str
    value: str


Subscript = Key | Index | Span | Filter


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """A field's name and what follows it in brackets."""

    name: str
    subscripts: tuple[Subscript, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Path:
    """A parsed path; `text` is what was written."""

    steps: tuple[Step, ...]
    text: str


def parse_path(text: str) -> Path:
    """Parses a path; ConfigError where it is none."""
    steps: list[Step] = []
    rest = text.strip()
    while True:
        name = NAME.match(rest)
        if name is None:
            fail(text, quote(rest[:30]) if rest else "the end of the path", "the name of a field")
        rest = rest[name.end() :]
        subscripts: list[Subscript] = []
        while rest.startswith("["):
            end = _closing_bracket(rest)
            if end is None:
                fail(text, "a '[' that is not closed", "']'")
            subscripts.append(_parse_subscript(text, rest[1:end].strip()))
            rest = rest[end + 1 :]
        steps.append(Step(name.group(), tuple(subscripts)))
        if not rest:
            break
        if not rest.startswith("."):
            fail(text, quote(rest[:30]), "'.' or '['")
        rest = rest[1:]
    return Path(_translated(tuple(steps)), text)


def canonical_text(path: str) -> str:
    """A path with EasyRec's two places of the features replaced by ours; it need not exist."""
    return _FEATURES.sub("features", path)


def fail(path: str, found: str, expected: str, hint: str = "") -> NoReturn:
    """Raises the ConfigError of one problem."""
    raise ConfigError([Problem(path, found, expected, hint)])


def _closing_bracket(text: str) -> int | None:
    """Index of the bracket that closes the one at the start; brackets in quotes do not count."""
    depth, quoted, skip = 0, "", False
    for index, char in enumerate(text):
        if skip:
            skip = False
        elif quoted:
            skip = char == "\\"
            quoted = "" if char == quoted else quoted
        elif char in "\"'":
            quoted = char
        elif char in "[]":
            depth += 1 if char == "[" else -1
            if depth == 0:
                return index
    return None


def _parse_subscript(path: str, text: str) -> Subscript:
    if not text:
        fail(path, "'[]'", "an index, a name, [*], a slice or a filter in the brackets")
    if text[0] in "\"'":
        unquoted = _unquote(text)
        if unquoted is None:
            fail(path, quote(text), "a name in quotes")
        return Key(unquoted)
    if re.fullmatch(r"-?\d{1,9}", text):
        return Index(int(text))
    if text == "*":
        return Span(None, None)
    span = _SLICE.fullmatch(text)
    if span:
        return Span(*(int(bound) if bound else None for bound in span.groups()))
    comparison = _OPERATOR.search(text)
    if comparison:
        value = text[comparison.end() :].strip()
        unquoted = _unquote(value)
        value = value if unquoted is None else unquoted
        return Filter(parse_path(text[: comparison.start()]), comparison.group(), value)
    return Key(text)


def _unquote(text: str) -> str | None:
    if len(text) < 2 or text[0] not in "\"'" or text[-1] != text[0]:
        return None
    return re.sub(r"\\(.)", r"\1", text[1:-1])


def _translated(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    for old, new in _TRANSLATED.items():
        if tuple(step.name for step in steps[: len(old)]) == old and not any(
            s.subscripts for s in steps[: len(old) - 1]
        ):
            return (Step(new[0], steps[len(old) - 1].subscripts), *steps[len(old) :])
    return steps
