"""The fields that a path leads to, to be read and set."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from easyrec_lite.config import schema
from easyrec_lite.config.binding import Node
from easyrec_lite.config.paths import NAME, Filter, Index, Key, Path, Span, Step, Subscript, fail, parse_path
from easyrec_lite.config.problems import ConfigError, Location, did_you_mean, quote

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "=": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


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
        field = schema.field_named(message, step.name)
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


def _walk(message: Message, steps: Sequence[Step], prefix: str, text: str) -> Iterator[AnyTarget]:
    step, rest = steps[0], steps[1:]
    field = schema.field_named(message, step.name)
    where = schema.join(prefix, step.name)
    if field is None:
        names = [field.name for field in schema.fields_of(message)]
        expected = f"a field of {message.DESCRIPTOR.name}"
        fail(text, f"the unknown field {quote(step.name)}", expected, did_you_mean(step.name, names))
    if schema.is_struct(field) and (rest or step.subscripts):
        if field.is_repeated:
            fail(text, f"{where} with more after it", "no list of Structs")
        yield _struct_target(message, field, step, rest, where)
        return
    targets = [Target(message, field, None, where)]
    if step.subscripts:
        if not field.is_repeated or schema.is_map(field):
            fail(text, f"{where} in brackets", f"{where} without brackets: it is no list")
        if len(step.subscripts) > 1:
            fail(text, f"{where} with two pairs of brackets", "one pair")
        values = getattr(message, step.name)
        chosen = _choose(values, field, step.subscripts[0], where, text)
        paths = (
            schema.item_paths(where, values) if field.message_type else [f"{where}[{i}]" for i in range(len(values))]
        )
        targets = [Target(message, field, index, paths[index]) for index in chosen]
    if not rest:
        yield from targets
        return
    if field.message_type is None:
        fail(text, f"{where} with '.{rest[0].name}' after it", f"the end of the path: {where} is no block")
    if field.is_repeated and not step.subscripts:
        fail(text, f"the list {where} as a whole", f"which of its items: {where}[*] for all of them")
    for target in targets:
        yield from _walk(target.get(), rest, target.path, text)


def _struct_target(
    message: Message, field: FieldDescriptor, step: Step, rest: Sequence[Step], where: str
) -> StructTarget:
    keys: list[str | int] = []
    for part in (Step("", step.subscripts), *rest):
        keys += [part.name] if part.name else []
        for subscript in part.subscripts:
            if isinstance(subscript, Key | Index):
                keys.append(subscript.name if isinstance(subscript, Key) else subscript.value)
            else:
                fail(where, "a filter or a slice", "a name or an index: that is all a Struct knows")
    path = where + "".join(f".{key}" if isinstance(key, str) and NAME.fullmatch(key) else f"[{key}]" for key in keys)
    return StructTarget(message, field, tuple(keys), path)


def _choose(values: Sequence[Any], field: FieldDescriptor, subscript: Subscript, where: str, text: str) -> list[int]:
    """The indices that a subscript selects."""
    if isinstance(subscript, Span):
        return list(range(len(values))[slice(subscript.start, subscript.stop)])
    if isinstance(subscript, Index):
        if not -len(values) <= subscript.value < len(values):
            has = f"it has {len(values)} item{'s' if len(values) != 1 else ''}"
            fail(text, f"{where}[{subscript.value}]", f"an index of {where}", has)
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
        fail(
            text, f"no {kind} named {quote(subscript.name)}", f"an item of {where}", did_you_mean(subscript.name, names)
        )
    return chosen


def _matches(value: Any, condition: Filter, text: str) -> bool:
    if not isinstance(value, Message):
        fail(text, "a filter", "an index: the list has no fields to compare")
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
