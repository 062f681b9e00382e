"""From the syntax tree to a message, with the place of every field."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any, cast

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from easyrec_lite.config import schema
from easyrec_lite.config.problems import Location, Problem, did_you_mean, nearest, quote
from easyrec_lite.config.syntax import Block, Entry, ListValue, Scalar, Value

_INTEGER = re.compile(r"-?(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)")
_FLOAT = re.compile(r"-?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?[fF]?")
_SPECIAL_FLOAT = re.compile(r"(-?)(inf(?:inity)?|nan)f?", re.IGNORECASE)
_MAX_FLOAT32 = 3.4028235677973366e38
_BOOLS = {"true": True, "True": True, "t": True, "1": True, "false": False, "False": False, "f": False, "0": False}


@dataclasses.dataclass(slots=True)
class Node:
    """Where a field was written.

    `children` mirrors the message: per field one node for each value, in order. `misspelt` holds the fields that
    somebody meant to write, so that they are not reported as missing as well.
    """

    location: Location | None = None
    children: dict[str, list[Node]] = dataclasses.field(default_factory=dict)
    misspelt: set[str] = dataclasses.field(default_factory=set)

    def child(self, name: str, index: int = 0) -> Node | None:
        """The node of a value, if it was written."""
        nodes = self.children.get(name, [])
        return nodes[index] if -len(nodes) <= index < len(nodes) else None


class MismatchError(ValueError):
    """A value that its field cannot hold."""

    def __init__(self, found: str, expected: str, hint: str = ""):
        super().__init__(f"found {found}, expected {expected}")
        self.found, self.expected, self.hint = found, expected, hint


def bind(block: Block, message: Message, problems: list[Problem], path: str = "") -> Node:
    """Fills `message` from `block`; appends to `problems` whatever does not fit."""
    return _Binder(problems, schema.descriptor_of(message)).block(block, message, path)


def bind_value(field: FieldDescriptor, value: Value, message: Message, problems: list[Problem], path: str) -> Node:
    """Sets one field of `message`, replacing what it held; returns a node that holds the field's nodes."""
    node = Node(value.location)
    message.ClearField(field.name)
    _Binder(problems, schema.descriptor_of(message)).values(field, value, message, node, path)
    return node


def convert(field: FieldDescriptor, scalar: Scalar) -> int | float | bool | str:
    """The Python value of a scalar of the field's type, or MismatchError."""
    if field.message_type is not None:
        raise MismatchError(_shown(scalar), schema.describe_type(field))
    text = scalar.text if scalar.data is None else None
    if scalar.loose and scalar.data is not None:
        text = scalar.data.decode("utf-8", "replace")
    if field.enum_type is not None:
        return _enum(field, scalar, text)
    bounds = schema.integer_range(field)
    if bounds is not None:
        return _integer(field, scalar, text, bounds)
    if schema.is_float(field):
        return _float(field, scalar, text)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        if scalar.data is None and text in _BOOLS and not (scalar.loose and text not in ("true", "false")):
            return _BOOLS[text]
        raise MismatchError(_shown(scalar), schema.describe_type(field))
    return _string(field, scalar)


def _enum(field: FieldDescriptor, scalar: Scalar, text: str | None) -> int:
    names = schema.enum_of(field).values_by_name
    if text is not None:
        if text in names:
            return int(names[text].number)
        if _INTEGER.fullmatch(text) and _to_int(text) in schema.enum_of(field).values_by_number:
            return _to_int(text)
    word = text if text is not None else (scalar.data or b"").decode("utf-8", "replace")
    hint = "write it without quotes" if word in names else did_you_mean(word, names)
    raise MismatchError(_shown(scalar), schema.describe_type(field), hint)


def _to_int(text: str) -> int:
    """A decimal, 0x hexadecimal or 0 octal number; of absurdly long ones only that they are too large."""
    digits = text.lstrip("-")
    base = 16 if digits[:2].lower() == "0x" else 8 if len(digits) > 1 and digits[0] == "0" else 10
    return int(text, base) if len(text) < 40 else 10**40


def _integer(field: FieldDescriptor, scalar: Scalar, text: str | None, bounds: tuple[int, int]) -> int:
    expected = schema.describe_type(field)
    if text is not None and _INTEGER.fullmatch(text):
        number = _to_int(text)
    elif text is not None and _FLOAT.fullmatch(text) and float(text.rstrip("fF")).is_integer():
        number = int(float(text.rstrip("fF")))
        if not scalar.loose:  # JSON knows only one kind of number
            raise MismatchError(_shown(scalar), expected, f"write {number}")
    else:
        hint = (
            "write it without quotes"
            if scalar.data is not None and _INTEGER.fullmatch(scalar.data.decode("utf-8", "replace"))
            else ""
        )
        raise MismatchError(_shown(scalar), expected, hint)
    if not bounds[0] <= number <= bounds[1]:
        raise MismatchError(_shown(scalar), expected)
    return number


def _float(field: FieldDescriptor, scalar: Scalar, text: str | None) -> float:
    expected = schema.describe_type(field)
    if text is None:
        raise MismatchError(_shown(scalar), expected, "write it without quotes")
    special = _SPECIAL_FLOAT.fullmatch(text)
    if special:
        return float(special[1] + special[2])
    if not _FLOAT.fullmatch(text):
        raise MismatchError(_shown(scalar), expected)
    number = float(text.rstrip("fF"))
    largest = _MAX_FLOAT32 if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT else math.inf
    if not abs(number) < largest:
        raise MismatchError(_shown(scalar), "a number that fits in a float")
    return number


def _string(field: FieldDescriptor, scalar: Scalar) -> str:
    if scalar.data is None:
        raise MismatchError(_shown(scalar), "text in quotes", "" if scalar.loose else f'write "{scalar.text}"')
    try:
        return scalar.data.decode("utf-8")
    except UnicodeDecodeError:
        raise MismatchError(_shown(scalar), "text in UTF-8") from None


def _shown(scalar: Scalar) -> str:
    return scalar.text if len(scalar.text) <= 60 else scalar.text[:57] + "..."


class _Binder:
    def __init__(self, problems: list[Problem], root: Descriptor):
        self._problems = problems
        self._root = root

    def block(self, block: Block, message: Message, path: str) -> Node:
        node = Node(block.location)
        descriptor = schema.descriptor_of(message)
        if descriptor.full_name == schema.STRUCT:
            self._struct(block, message, path)
            return node
        for entry in block.entries:
            field = schema.field_named(descriptor, entry.name)
            if field is None and isinstance(entry.value, Scalar | Block | ListValue):
                field = next(
                    (f for f in schema.fields_of(descriptor) if f.json_name == entry.name and _loose(entry.value)), None
                )
            if field is None:
                self._unknown(entry, descriptor, node, path)
                continue
            field_path = schema.join(path, field.name)
            if not field.is_repeated and field.name in node.children:
                first = node.children[field.name][0].location
                self._report(entry, field_path, "the field a second time", "it once", _first(first))
                continue
            oneof = field.containing_oneof
            if oneof is not None:
                other = next((f.name for f in oneof.fields if f is not field and f.name in node.children), None)
                if other is not None:
                    first = node.children[other][0].location
                    found = f"{field.name} besides {other}"
                    self._report(entry, field_path, found, "only one of them", _first(first))
                    continue
            self.values(field, entry.value, message, node, field_path, entry)
        return node

    def values(
        self,
        field: FieldDescriptor,
        value: Value,
        message: Message,
        node: Node,
        path: str,
        entry: Entry | None = None,
    ) -> None:
        """Sets a field, or appends to it where it is repeated."""
        nodes = node.children.setdefault(field.name, [])
        location = entry.location if entry is not None else value.location
        if isinstance(value, ListValue) and not schema.is_struct(field):
            if entry is not None and not entry.colon and field.message_type is None:
                self._report(entry, path, f"no ':' after {field.name}", f"{field.name}: [...]", "")
            if not field.is_repeated:
                self._problems.append(Problem(path, "a list", schema.describe_type(field)).at(location))
                nodes.append(Node(location))
                return
            for item in value.items:
                self._one(field, item, message, nodes, path, item.location)
        else:
            self._one(field, value, message, nodes, path, location)

    def _one(
        self, field: FieldDescriptor, value: Value, message: Message, nodes: list[Node], path: str, location: Location
    ) -> None:
        try:
            if field.message_type is None:
                if not isinstance(value, Scalar):
                    found = "a list in a list" if isinstance(value, ListValue) else "a block"
                    raise MismatchError(found, schema.describe_type(field))
                self._set(field, convert(field, value), message)
                nodes.append(Node(location))
                return
            if not isinstance(value, Block):
                found = _shown(value) if isinstance(value, Scalar) else "a list in a list"
                raise MismatchError(found, schema.describe_type(field))
        except MismatchError as mismatch:
            problem = Problem(path, mismatch.found, mismatch.expected, mismatch.hint)
            self._problems.append(problem.at(value.location))
            if not field.is_repeated:
                nodes.append(Node(location))
            return
        if schema.is_map(field):
            self._map_entry(field, value, message, path)
        elif field.is_repeated:
            item = getattr(message, field.name).add()
            nodes.append(self.block(value, item, f"{path}[{_key(field.message_type, value, len(nodes))}]"))
        else:
            item = getattr(message, field.name)
            item.SetInParent()
            nodes.append(self.block(value, item, path))
        if nodes:
            nodes[-1].location = location

    @staticmethod
    def _set(field: FieldDescriptor, value: int | float | bool | str, message: Message) -> None:
        if field.is_repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)

    def _map_entry(self, field: FieldDescriptor, value: Block, message: Message, path: str) -> None:
        key_field, value_field = schema.fields_of(cast("Descriptor", field.message_type))
        parts = {entry.name: entry.value for entry in value.entries}
        key, item = parts.get("key"), parts.get("value")
        if (
            not isinstance(key, Scalar)
            or (item is not None and not isinstance(item, Block))
            or set(parts) - {"key", "value"}
        ):
            self._problems.append(
                Problem(path, "an entry of another form", '{ key: "..." value { ... } }').at(value.location)
            )
            return
        try:
            name = convert(key_field, key)
        except MismatchError as mismatch:
            self._problems.append(Problem(path, mismatch.found, mismatch.expected).at(key.location))
            return
        target = getattr(message, field.name)[name]
        target.Clear()
        if item is not None:
            self.block(item, target, schema.join(path, value_field.name))

    def _struct(self, block: Block, message: Message, path: str) -> None:
        """A Struct: as JSON, in protobuf's long form (`fields { key: ... }`), or as plain `name: value` entries."""
        loose = any(_loose(entry.value) for entry in block.entries)
        if not loose and all(
            entry.name == "fields" and isinstance(entry.value, Block | ListValue) for entry in block.entries
        ):
            (field,) = schema.fields_of(message)
            node = Node(block.location)
            for entry in block.entries:
                self.values(field, entry.value, message, node, schema.join(path, "fields"), entry)
            return
        try:
            json_format.ParseDict(self._plain(block, path), message)
        except (json_format.ParseError, RecursionError) as error:
            self._problems.append(Problem(path, str(error), "names and values").at(block.location))

    def _plain(self, value: Value, path: str) -> Any:
        if isinstance(value, Block):
            plain: dict[str, object] = {}
            for entry in value.entries:
                if entry.name in plain:
                    self._report(entry, schema.join(path, entry.name), "the name a second time", "it once", "")
                plain[entry.name] = self._plain(entry.value, schema.join(path, entry.name))
            return plain
        if isinstance(value, ListValue):
            return [self._plain(item, path) for item in value.items]
        if value.data is not None:
            return value.data.decode("utf-8", "replace")
        if value.text in ("true", "false"):
            return value.text == "true"
        if _FLOAT.fullmatch(value.text) or _INTEGER.fullmatch(value.text):
            return float(value.text.rstrip("fF")) if "x" not in value.text.lower() else float(int(value.text, 16))
        self._problems.append(
            Problem(path, _shown(value), "a number, true, false or text in quotes").at(value.location)
        )
        return None

    def _unknown(self, entry: Entry, descriptor: Descriptor, node: Node, path: str) -> None:
        names = [field.name for field in schema.fields_of(descriptor)]
        meant = nearest(entry.name, names)
        if meant is not None:
            node.misspelt.add(meant)
            hint = f"did you mean {quote(meant)}?"
        else:
            owners = schema.messages_with_field(self._root, entry.name)
            hint = f"it is a field of {' and of '.join(owners[:3])}" if owners else ""
        expected = f"a field of {descriptor.name}"
        self._report(entry, schema.join(path, entry.name), f"the unknown field {quote(entry.name)}", expected, hint)

    def _report(self, entry: Entry, path: str, found: str, expected: str, hint: str) -> None:
        self._problems.append(Problem(path, found, expected, hint).at(entry.location))


def _loose(value: Value) -> bool:
    """Whether the value comes from JSON."""
    if isinstance(value, Scalar):
        return value.loose
    parts = value.items if isinstance(value, ListValue) else tuple(entry.value for entry in value.entries)
    return any(_loose(part) for part in parts)


def _first(location: Location | None) -> str:
    return f"the first is at {location}" if location is not None else ""


def _key(descriptor: Descriptor, block: Block, index: int) -> str:
    """The name of an item that is still to be read, for the paths of problems in it."""
    for name in schema.KEY_FIELDS.get(descriptor.name, ()):
        for entry in block.entries:
            value = entry.value
            if isinstance(value, ListValue) and value.items:
                value = value.items[0]
            if entry.name == name and isinstance(value, Scalar) and value.data:
                return schema.format_key(value.data.decode("utf-8", "replace"))
    return str(index)
