"""Questions about the schema: types in words, annotations, the keys of repeated messages, walking a message."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, EnumDescriptor, EnumValueDescriptor, FieldDescriptor
from google.protobuf.message import Message

from easyrec_lite.config.problems import one_of
from easyrec_lite.protos import options_pb2

_OPTIONS: Any = options_pb2
SUPPORTED: int = options_pb2.SUPPORTED
PLANNED: int = options_pb2.PLANNED
NO_EFFECT: int = options_pb2.NO_EFFECT
PLATFORM: int = options_pb2.PLATFORM

STRUCT = "google.protobuf.Struct"

# What a repeated message is called by in paths: the first of these fields that is set.
KEY_FIELDS: dict[str, tuple[str, ...]] = {
    "FeatureConfig": ("feature_name", "input_names"),
    "FeatureGroupConfig": ("group_name",),
    "SeqAttGroupConfig": ("group_name",),
    "Tower": ("input",),
    "DINTower": ("input",),
    "BSTTower": ("input",),
    "TaskTower": ("tower_name",),
    "BayesTaskTower": ("tower_name",),
    "ExpertTower": ("expert_name",),
    "ExtractionNetwork": ("network_name",),
    "Field": ("input_name",),
    "LabelFunction": ("label_name",),
    "Loss": ("loss_name",),
    "Block": ("name",),
    "BlockPackage": ("name",),
}
# Messages that are called by the member of their oneof that is set.
_KEY_ONEOFS = {"EvalMetrics": "metric"}

_INTEGER_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_FLOATS = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)
_PLAIN_KEY = re.compile(r"[^\[\]\"'<>=!*:\s]+")


def descriptor_of(message: Message) -> Descriptor:
    """The schema of a message."""
    return cast("Descriptor", message.DESCRIPTOR)


def fields_of(message: Message | Descriptor) -> list[FieldDescriptor]:
    """The fields that the message's schema has."""
    descriptor = message.DESCRIPTOR if isinstance(message, Message) else message
    return list(cast("Sequence[FieldDescriptor]", descriptor.fields))


def field_named(message: Message | Descriptor, name: str) -> FieldDescriptor | None:
    """The field of that name, if the schema has it."""
    descriptor = message.DESCRIPTOR if isinstance(message, Message) else message
    return cast("FieldDescriptor | None", descriptor.fields_by_name.get(name))


def enum_of(field: FieldDescriptor) -> EnumDescriptor:
    """The enum of a field that holds one."""
    return cast("EnumDescriptor", field.enum_type)


def integer_range(field: FieldDescriptor) -> tuple[int, int] | None:
    """Smallest and largest value of an integer field; None for other types."""
    return _INTEGER_RANGES.get(field.cpp_type)


def is_float(field: FieldDescriptor) -> bool:
    """Whether the field holds float or double."""
    return field.cpp_type in _FLOATS


def is_struct(field: FieldDescriptor) -> bool:
    """Whether the field holds a google.protobuf.Struct: any names, any values."""
    return field.message_type is not None and field.message_type.full_name == STRUCT


def is_map(field: FieldDescriptor) -> bool:
    """Whether the field is a protobuf map."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def describe_type(field: FieldDescriptor) -> str:
    """One value of the field, in words."""
    if field.message_type is not None:
        return f"a block {{ ... }} ({field.message_type.name})"
    if field.enum_type is not None:
        return one_of([value.name for value in supported_values(field)])
    bounds = integer_range(field)
    if bounds is not None:
        return f"a whole number from {bounds[0]} to {bounds[1]}"
    if is_float(field):
        return "a number"
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return "true or false"
    return "text in quotes"


def supported_values(field: FieldDescriptor) -> list[EnumValueDescriptor]:
    """The values of an enum field that are implemented."""
    return [value for value in enum_of(field).values if value_support(value)[0] in (SUPPORTED, NO_EFFECT)]


def support(field: FieldDescriptor) -> tuple[int, str]:
    """How far the field is supported, and the advice that goes with it."""
    extensions = field.GetOptions().Extensions
    return extensions[_OPTIONS.support], extensions[_OPTIONS.advice]


def value_support(value: EnumValueDescriptor) -> tuple[int, str]:
    """How far an enum value is supported, and the advice that goes with it."""
    extensions = value.GetOptions().Extensions
    return extensions[_OPTIONS.value_support], extensions[_OPTIONS.value_advice]


def is_required(field: FieldDescriptor) -> bool:
    """Whether the field must be written; one that has a default need not be, as in EasyRec."""
    return field.GetOptions().Extensions[_OPTIONS.required] and not field.has_default_value


def is_secret(field: FieldDescriptor) -> bool:
    """Whether the field holds a reference to a secret."""
    return field.GetOptions().Extensions[_OPTIONS.secret]


def has_default(message: Message, field: FieldDescriptor) -> bool:
    """Whether a field that is set says no more than if it were not."""
    if field.is_repeated:
        return len(getattr(message, field.name)) == 0
    if field.message_type is not None:
        return not message.HasField(field.name)
    return bool(getattr(message, field.name) == field.default_value)


def is_missing(message: Message, field: FieldDescriptor) -> bool:
    """Whether a required field was not written, or holds nothing."""
    if field.is_repeated:
        return len(getattr(message, field.name)) == 0
    return not message.HasField(field.name) or getattr(message, field.name) == ""


def effective_name(message: Message) -> str | None:
    """What paths call an item of a repeated message, such as a feature's name; None if it has no name."""
    kind = message.DESCRIPTOR.name
    if kind in _KEY_ONEOFS:
        return message.WhichOneof(_KEY_ONEOFS[kind])
    for name in KEY_FIELDS.get(kind, ()):
        value = getattr(message, name)
        if isinstance(value, str):
            if value:
                return value
        elif value:
            return str(value[0])
    return None


def format_key(name: str) -> str:
    """`name` inside of brackets: in quotes where it would be read as an index or a filter."""
    if _PLAIN_KEY.fullmatch(name) and not re.fullmatch(r"-?\d+", name):
        return name
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def item_paths(path: str, items: Sequence[Message]) -> list[str]:
    """The path of each item of a repeated message: by its name where only it has that name, else by its index."""
    names = [effective_name(item) for item in items]
    counts = Counter(names)
    return [
        f"{path}[{format_key(name)}]" if name is not None and counts[name] == 1 else f"{path}[{index}]"
        for index, name in enumerate(names)
    ]


def join(path: str, name: str) -> str:
    """`path.name`."""
    return f"{path}.{name}" if path else name


def children(message: Message, path: str = "") -> Iterator[tuple[str, FieldDescriptor, Message]]:
    """The messages that are set directly in `message`, each with its path and field; maps and Structs left out."""
    for field, value in message.ListFields():
        if field.message_type is None or is_map(field) or is_struct(field):
            continue
        if field.is_repeated:
            for item, item_path in zip(value, item_paths(join(path, field.name), value), strict=True):
                yield item_path, field, item
        else:
            yield join(path, field.name), field, value


def walk(message: Message, path: str = "") -> Iterator[tuple[str, Message]]:
    """All messages in `message`, itself first; below fields that are not supported it does not go."""
    yield path, message
    for child_path, field, child in children(message, path):
        if support(field)[0] in (SUPPORTED, NO_EFFECT):
            yield from walk(child, child_path)


def messages_with_field(root: Descriptor, name: str) -> list[str]:
    """Names of the messages below `root` that have a field of this name."""
    seen: dict[str, Descriptor] = {}
    waiting = [root]
    while waiting:
        descriptor = waiting.pop()
        if descriptor.full_name in seen:
            continue
        seen[descriptor.full_name] = descriptor
        waiting += [field.message_type for field in descriptor.fields if field.message_type is not None]
    return sorted(descriptor.name for descriptor in seen.values() if name in descriptor.fields_by_name)
