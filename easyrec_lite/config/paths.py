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
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from easyrec_lite.config import schema
from easyrec_lite.config.binding import Node
from easyrec_lite.config.problems import ConfigError, Location, Problem, did_you_mean, quote

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "=": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_OPERATOR = re.compile(r"==|!=|>=|<=|=|>|<")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SLICE = re.compile(r"(-?\d+)?:(-?\d+)?")
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


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """A field that a path leads to: a value, an item of a list (`index`), or a list as a whole."""

    parent: Message
    field: FieldDescriptor
    index: int | None
    path: str

    @property
    def is_list(self) -> bool:
        """Whether the target is a whole list."""
        return self.field.is_repeated and self.index is None

    def get(self) -> Any:
        """The value, the default where it is unset; a list for a whole list."""
        value = getattr(self.parent, self.field.name)
        if self.index is not None:
            return value[self.index]
        return list(value) if self.field.is_repeated else value

    def set(self, value: Any) -> None:
        """Sets the value (a message is copied); TypeError or ValueError where it does not fit the field."""
        name = self.field.name
        if self.is_list:
            items = list(value)
            self.parent.ClearField(name)
            getattr(self.parent, name).extend(items)
        elif self.field.message_type is not None:
            target = getattr(self.parent, name) if self.index is None else getattr(self.parent, name)[self.index]
            target.CopyFrom(value)
            if self.index is None:
                target.SetInParent()
        elif self.index is not None:
            getattr(self.parent, name)[self.index] = value
        else:
            setattr(self.parent, name, value)


@dataclasses.dataclass(frozen=True, slots=True)
class StructTarget:
    """A value inside of a Struct; `keys` lead to it by name and index."""

    parent: Message
    field: FieldDescriptor
    keys: tuple[str | int, ...]
    path: str

    def get(self) -> Any:
        """The plain Python value; None where there is none."""
        value: Any = json_format.MessageToDict(getattr(self.parent, self.field.name))
        for key in self.keys:
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    def set(self, value: Any) -> None:
        """Sets a plain Python value; names on the way to it are made where they are missing."""
        struct = getattr(self.parent, self.field.name)
        plain: Any = json_format.MessageToDict(struct)
        inner = plain
        for key, following in zip(self.keys, self.keys[1:], strict=False):
            if isinstance(key, str) and isinstance(inner, dict):
                inner = inner.setdefault(key, {} if isinstance(following, str) else [])
            else:
                inner = inner[key]
        inner[self.keys[-1]] = value
        struct.Clear()
        json_format.ParseDict(plain, struct)


AnyTarget = Target | StructTarget


def parse_path(text: str) -> Path:
    """Parses a path; ConfigError where it is none."""
    steps: list[Step] = []
    rest = text.strip()
    while True:
        name = _NAME.match(rest)
        if name is None:
            _fail(text, quote(rest[:30]) if rest else "the end of the path", "the name of a field")
        rest = rest[name.end() :]
        subscripts: list[Subscript] = []
        while rest.startswith("["):
            end = _closing_bracket(rest)
            if end is None:
                _fail(text, "a '[' that is not closed", "']'")
            subscripts.append(_parse_subscript(text, rest[1:end].strip()))
            rest = rest[end + 1 :]
        steps.append(Step(name.group(), tuple(subscripts)))
        if not rest:
            break
        if not rest.startswith("."):
            _fail(text, quote(rest[:30]), "'.' or '['")
        rest = rest[1:]
    return Path(_translated(tuple(steps)), text)


def find(message: Message, path: str | Path) -> list[AnyTarget]:
    """The fields of `message` that a path leads to, in order.

    A filter, a slice or `[*]` may lead to none. ConfigError, with a "did you mean", where a field, a name or an index
    does not exist.
    """
    path = parse_path(path) if isinstance(path, str) else path
    return list(_walk(message, path.steps, "", path.text))


def route(message: Message, path: str) -> list[tuple[str, int]]:
    """The fields on the way of a path that leads to one place, as (name, index), as far as they exist."""
    try:
        steps = parse_path(path).steps
    except ConfigError:
        return []
    found: list[tuple[str, int]] = []
    for step in steps:
        field = message.DESCRIPTOR.fields_by_name.get(step.name)
        if field is None:
            break
        index = 0
        if field.is_repeated and step.subscripts:
            try:
                chosen = _choose(getattr(message, step.name), field, step.subscripts[0], "", path)
            except ConfigError:
                break
            if not chosen:
                break
            index = chosen[0]
        found.append((step.name, index))
        if field.message_type is None or schema.is_struct(field) or schema.is_map(field):
            break
        if field.is_repeated and not step.subscripts:
            break
        message = getattr(message, step.name)[index] if field.is_repeated else getattr(message, step.name)
    return found


def locate(message: Message, root: Node, path: str) -> Location | None:
    """Where the field of a path was written; the place of the nearest block around it if it was not written itself."""
    node, place = root, root.location
    for name, index in route(message, path):
        child = node.child(name, index)
        if child is None:
            break
        node, place = child, child.location or place
    return place


def _fail(path: str, found: str, expected: str, hint: str = "") -> Any:
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
        _fail(path, "'[]'", "an index, a name, [*], a slice or a filter in the brackets")
    if text[0] in "\"'":
        name = _unquote(text)
        if name is None:
            _fail(path, quote(text), "a name in quotes")
        return Key(name)
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
        return Filter(parse_path(text[: comparison.start()]), comparison.group(), _unquote(value) or value)
    return Key(text)


def _unquote(text: str) -> str | None:
    if len(text) < 2 or text[0] not in "\"'" or text[-1] != text[0]:
        return None
    return re.sub(r"\\(.)", r"\1", text[1:-1])


def _translated(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    for old, new in _TRANSLATED.items():
        if tuple(step.name for step in steps[: len(old)]) == old and not any(s.subscripts for s in steps[: len(old) - 1]):
            return (Step(new[0], steps[len(old) - 1].subscripts), *steps[len(old) :])
    return steps


def _walk(message: Message, steps: Sequence[Step], prefix: str, text: str) -> Iterator[AnyTarget]:
    step, rest = steps[0], steps[1:]
    field = message.DESCRIPTOR.fields_by_name.get(step.name)
    where = schema.join(prefix, step.name)
    if field is None:
        names = [field.name for field in message.DESCRIPTOR.fields]
        expected = f"a field of {message.DESCRIPTOR.name}"
        _fail(text, f"the unknown field {quote(step.name)}", expected, did_you_mean(step.name, names))
    if schema.is_struct(field) and (rest or step.subscripts):
        if field.is_repeated:
            _fail(text, f"{where} with more after it", "no list of Structs")
        yield _struct_target(message, field, step, rest, where)
        return
    targets = [Target(message, field, None, where)]
    if step.subscripts:
        if not field.is_repeated or schema.is_map(field):
            _fail(text, f"{where} in brackets", f"{where} without brackets: it is no list")
        if len(step.subscripts) > 1:
            _fail(text, f"{where} with two pairs of brackets", "one pair")
        values = getattr(message, step.name)
        chosen = _choose(values, field, step.subscripts[0], where, text)
        paths = schema.item_paths(where, values) if field.message_type else [f"{where}[{i}]" for i in range(len(values))]
        targets = [Target(message, field, index, paths[index]) for index in chosen]
    if not rest:
        yield from targets
        return
    if field.message_type is None:
        _fail(text, f"{where} with '.{rest[0].name}' after it", f"the end of the path: {where} is no block")
    if field.is_repeated and not step.subscripts:
        _fail(text, f"the list {where} as a whole", f"which of its items: {where}[*] for all of them")
    for target in targets:
        yield from _walk(target.get(), rest, target.path, text)


def _struct_target(message: Message, field: FieldDescriptor, step: Step, rest: Sequence[Step], where: str) -> StructTarget:
    keys: list[str | int] = []
    for part in (Step("", step.subscripts), *rest):
        keys += [part.name] if part.name else []
        for subscript in part.subscripts:
            if isinstance(subscript, Key | Index):
                keys.append(subscript.name if isinstance(subscript, Key) else subscript.value)
            else:
                _fail(where, "a filter or a slice", "a name or an index: that is all a Struct knows")
    path = where + "".join(f".{key}" if isinstance(key, str) and _NAME.fullmatch(key) else f"[{key}]" for key in keys)
    return StructTarget(message, field, tuple(keys), path)


def _choose(values: Sequence[Any], field: FieldDescriptor, subscript: Subscript, where: str, text: str) -> list[int]:
    """The indices that a subscript selects."""
    if isinstance(subscript, Span):
        return list(range(len(values))[slice(subscript.start, subscript.stop)])
    if isinstance(subscript, Index):
        if not -len(values) <= subscript.value < len(values):
            has = f"it has {len(values)} item{'s' if len(values) != 1 else ''}"
            _fail(text, f"{where}[{subscript.value}]", f"an index of {where}", has)
        return [subscript.value % len(values)]
    if isinstance(subscript, Filter):
        return [index for index, value in enumerate(values) if _matches(value, subscript, text)]
    if field.message_type is None:
        names = [str(value) for value in values]
    else:
        names = [schema.effective_name(value) or "" for value in values]
    chosen = [index for index, name in enumerate(names) if name == subscript.name]
    if not chosen:
        kind = field.message_type.name if field.message_type else "value"
        _fail(text, f"no {kind} named {quote(subscript.name)}", f"an item of {where}", did_you_mean(subscript.name, names))
    return chosen


def _matches(value: Any, condition: Filter, text: str) -> bool:
    if not isinstance(value, Message):
        _fail(text, "a filter", "an index: the list has no fields to compare")
    return any(_compares(target, condition) for target in _walk(value, condition.path.steps, "", text))


def _compares(target: AnyTarget, condition: Filter) -> bool:
    found = target.get()
    candidates = found if isinstance(found, list) else [found]
    return any(_compare(target, candidate, condition) for candidate in candidates)


def _compare(target: AnyTarget, found: Any, condition: Filter) -> bool:
    expected: Any = condition.value
    if isinstance(found, bool):
        found = str(found).lower()
        expected = expected.lower()
    elif isinstance(target, Target) and target.field.enum_type is not None:
        names = target.field.enum_type.values_by_name
        expected = names[expected].number if expected in names else expected
    if isinstance(found, int | float):
        try:
            expected = float(expected)
        except ValueError:
            return condition.operator == "!="
    elif not isinstance(found, str):
        return False
    return _COMPARISONS[condition.operator](found, expected)
