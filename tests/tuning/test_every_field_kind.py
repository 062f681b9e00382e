"""Walks the schema: whatever a config can hold can be searched."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from easyrec_lite.config import find
from easyrec_lite.config.binding import Node
from easyrec_lite.config.canonical import canonicalize
from easyrec_lite.config.schema import is_float, is_struct
from easyrec_lite.protos import pipeline_pb2
from easyrec_lite.tuning import read_space
from easyrec_lite.tuning.space import made

# What the canonical form spells differently: the choice must change the config all the same.
RESPELT = {
    "feature_configs",
    "feature_config",
    "shared_names",
    "parquet_train_input",
    "parquet_eval_input",
    "dense_regularization",
    "boundaries",
    "auto_expand_input_fields",
}


def fields() -> Iterator[tuple[tuple[FieldDescriptor, ...], FieldDescriptor]]:
    """Every field of the language once, with the fields that lead to its message."""
    seen: set[str] = set()
    waiting: list[tuple[tuple[FieldDescriptor, ...], Descriptor]] = [((), pipeline_pb2.EasyRecConfig.DESCRIPTOR)]
    while waiting:
        way, descriptor = waiting.pop(0)
        if descriptor.full_name in seen:
            continue
        seen.add(descriptor.full_name)
        for field in descriptor.fields:
            yield way, field
            if field.message_type is not None and not is_struct(field):
                waiting.append(((*way, field), field.message_type))


def parent(config: Message, way: tuple[FieldDescriptor, ...]) -> tuple[Message, str]:
    """Makes the blocks on the way; the innermost and its path."""
    message, path = config, ""
    for field in way:
        path += f"{'.' if path else ''}{field.name}"
        if field.is_repeated:
            message = getattr(message, field.name).add()
            path += "[0]"
        else:
            getattr(message, field.name).SetInParent()
            message = getattr(message, field.name)
    return message, path


def quoted(*values: str) -> str:
    return f"values: {json.dumps(list(values))}"


def item(field: FieldDescriptor) -> list[str]:
    """Two values of a field, as text."""
    if is_struct(field):
        return ['{"a": 1}', '{"a": [true, "b"]}']
    if field.message_type is not None:
        return ["{ }", "{ }"]
    if field.enum_type is not None:
        return [value.name for value in field.enum_type.values][:2]
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return ["true", "false"]
    return ["3", "2"] if field.cpp_type != FieldDescriptor.CPPTYPE_STRING else ["tanh", "elu"]


def kind_of(field: FieldDescriptor) -> str:
    """The choice that suits a field."""
    first, second = (item(field) * 2)[:2]
    if field.is_repeated:
        return quoted(f"[{first}, {second}]", "[]")
    if field.message_type is not None and not is_struct(field):
        return quoted(first)
    if is_float(field):
        return "float_range { low: 0.25 high: 0.5 }"
    if field.enum_type is None and field.cpp_type not in (
        FieldDescriptor.CPPTYPE_BOOL, FieldDescriptor.CPPTYPE_STRING, FieldDescriptor.CPPTYPE_MESSAGE,
    ):  # fmt: skip
        return "int_range { low: 3 high: 4 }"
    return quoted(*dict.fromkeys((first, second)))


ALL = list(fields())


def search(field: FieldDescriptor, path: str, config: pipeline_pb2.EasyRecConfig, kind: str) -> Iterator[object]:
    """The field's values in the configs of the choice's values."""
    space = read_space(text=f'objectives {{ metric: "auc" }} parameters {{ name: "x" path: "{path}" {kind} }}')
    (choice,) = space.choices
    for value, _ in choice.samples:
        changed, edits = made(config, space, {"x": value})
        assert len(edits) == 1
        if field.name in RESPELT:
            yield changed.SerializeToString(deterministic=True)
            continue
        (target,) = find(changed, path)
        found = target.get()
        if isinstance(found, Message):
            yield found.SerializeToString(deterministic=True)
        else:
            yield (
                [v.SerializeToString() if isinstance(v, Message) else v for v in found] if field.is_repeated else found
            )


def expected(field: FieldDescriptor, samples: int) -> list[object]:
    """What these values must be."""
    first, second = (item(field) * 2)[:2]
    plain: dict[str, object] = {"true": True, "false": False}
    if field.message_type is not None and not is_struct(field):
        return [[b"", b""], []] if field.is_repeated else [b""]
    if field.enum_type is not None:
        plain = {value.name: value.number for value in field.enum_type.values}
    elif is_float(field):
        return [[3.0, 2.0], []] if field.is_repeated else [0.25, 0.5]
    elif field.cpp_type not in (FieldDescriptor.CPPTYPE_BOOL, FieldDescriptor.CPPTYPE_STRING):
        return [[3, 2], []] if field.is_repeated else [3, 4]
    values = [plain.get(first, first), plain.get(second, second)]
    return [values, []] if field.is_repeated else values[:samples]


@pytest.mark.parametrize(("way", "field"), [pytest.param(*pair, id=pair[1].full_name) for pair in ALL])
def test_the_field_can_be_searched(way: tuple[FieldDescriptor, ...], field: FieldDescriptor) -> None:
    config = pipeline_pb2.EasyRecConfig()
    _, path = parent(config, way)
    canonicalize(config, Node())  # as the base of a search is
    path = f"{path}.{field.name}" if path else field.name
    found = list(search(field, path, config, kind_of(field)))
    if field.name in RESPELT or is_struct(field):
        assert found
        assert len({str(value) for value in found}) == len(found)
    else:
        assert found == expected(field, len(found))


def test_the_walk_meets_every_kind() -> None:
    """All types of protobuf that the language uses, single and repeated, in and out of a oneof."""
    types = {"struct" if is_struct(field) else field.type for _, field in ALL}
    assert "struct" in types
    for type_ in ("INT32", "INT64", "UINT32", "UINT64", "FLOAT", "BOOL", "STRING", "ENUM", "MESSAGE"):
        assert getattr(FieldDescriptor, f"TYPE_{type_}") in types, type_
    assert {field.is_repeated for _, field in ALL} == {True, False}
    assert any(f.containing_oneof is not None and f.message_type is None for _, f in ALL)
    assert any(f.containing_oneof is not None and f.message_type is not None for _, f in ALL)
    assert len(ALL) > 500


@pytest.mark.parametrize(
    ("path", "kind", "values"),
    [
        ("model_config.multi_tower.towers[0].dnn.hidden_units[1]", "int_range { low: 5 high: 6 }", [5, 6]),
        ("model_config.model_params.params.deep.units[0]", "int_range { low: 5 high: 6 }", [5, 6]),
        ("features[0].input_names[0]", quoted("a", "b"), ["a", "b"]),
    ],
)
def test_items_of_lists_and_of_structs(path: str, kind: str, values: list[object]) -> None:
    config = pipeline_pb2.EasyRecConfig()
    config.features.add(input_names=["u"], feature_name="u")
    if "params" in path:
        config.model_config.model_params.params.update({"deep": {"units": [1, 2]}})
    else:
        config.model_config.multi_tower.towers.add(input="x").dnn.hidden_units.extend([1, 2])
    space = read_space(text=f'objectives {{ metric: "auc" }} parameters {{ name: "x" path: "{path}" {kind} }}')
    found = []
    for value, _ in space.choices[0].samples:
        (target,) = find(made(config, space, {"x": value})[0], path)
        found.append(target.get())
    assert found == values


def test_choosing_a_member_of_a_oneof_clears_the_others() -> None:
    config = pipeline_pb2.EasyRecConfig()
    config.train_config.optimizer_config.add().adam_optimizer.beta1 = 0.5
    text = """objectives { metric: "auc" } parameters { name: "x" path: "train_config.optimizer_config[0]"
      values: "{ adagrad_optimizer { initial_accumulator_value: 0.5 } }" values: "{ adam_optimizer { } }" }"""
    space = read_space(text=text)
    changed = made(config, space, {"x": space.choices[0].samples[0][0]})[0].train_config.optimizer_config[0]
    assert changed.WhichOneof("optimizer") == "adagrad_optimizer"
