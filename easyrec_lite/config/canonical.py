"""The one form that every later room sees.

EasyRec has several spellings of the same thing. `canonicalize` leaves one:

* feature_configs and feature_config.features become `features`; every feature has its feature_name;
* parquet_*_input becomes *_input_path;
* `f[1-21]` is written out: in input_fields (with auto_expand_input_fields), shared_names and a group's feature_names;
* shared_names become features of their own;
* boundaries are in order;
* `tf.nn.relu` becomes `relu`;
* DeepFM's dense_regularization becomes l2_regularization.

It can be applied twice; the second time it changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from easyrec_lite.config import schema
from easyrec_lite.config.binding import Node
from easyrec_lite.config.problems import Problem, quote
from easyrec_lite.protos import pipeline_pb2

MAX_RANGE = 100_000
_RANGE = re.compile(r"(.+)\[(\d{1,9})-(\d{1,9})\]")
_ACTIVATION_PREFIX = re.compile(r"^(tf\.)?((keras\.activations|nn|math)\.)?")


def canonicalize(config: pipeline_pb2.EasyRecConfig, root: Node) -> list[Problem]:
    """Brings a config, and the places of its fields, into the canonical form; returns what cannot be."""
    problems: list[Problem] = []
    _unite_features(config, root)
    for old, new in (("parquet_train_input", "train_input_path"), ("parquet_eval_input", "eval_input_path")):
        if config.HasField(old):
            setattr(config, new, getattr(config, old))  # a oneof: setting the one clears the other
            root.children[new] = root.children.pop(old, [])
    _expand_input_fields(config, root, problems)
    _clone_shared(config, root, problems)
    _expand_groups(config, root, problems)
    for feature in config.features:
        feature.boundaries[:] = sorted(feature.boundaries)
    for _, message in schema.walk(config):
        for field in schema.fields_of(message):
            if (
                field.name.endswith("activation")
                and field.cpp_type == field.CPPTYPE_STRING
                and message.HasField(field.name)
            ):
                setattr(message, field.name, canonical_activation(getattr(message, field.name)))
    if config.model_config.HasField("deepfm"):
        deepfm = config.model_config.deepfm
        if deepfm.HasField("dense_regularization"):
            deepfm.l2_regularization = deepfm.dense_regularization
            deepfm.ClearField("dense_regularization")
    return problems


def canonical_activation(name: str) -> str:
    """The short name of an activation: `relu` for `tf.nn.relu`, `linear` for no activation."""
    short = _ACTIVATION_PREFIX.sub("", name.strip().lower())
    return short if short not in ("", "none") else "linear"


def expand_range(name: str) -> list[str] | None:
    """["f1", "f2", "f3"] for "f[1-3]"; [name] where it has no range; None where the range is empty or too large."""
    match = _RANGE.fullmatch(name)
    if match is None:
        return [name]
    first, last = int(match[2]), int(match[3])
    if not 0 <= last - first < MAX_RANGE:
        return None
    return [f"{match[1]}{number}" for number in range(first, last + 1)]


def _unite_features(config: pipeline_pb2.EasyRecConfig, root: Node) -> None:
    nodes = root.children.setdefault("features", [])
    _fit(nodes, len(config.features), root)
    for holder, holder_node, name in (
        (config, root, "feature_configs"),
        (config.feature_config, root.child("feature_config") or Node(), "features"),
    ):
        moved = getattr(holder, name)
        config.features.extend(moved)
        nodes += _fit(holder_node.children.pop(name, []), len(moved), holder_node)
        if moved:
            holder.ClearField(name)
    if config.HasField("feature_config") and not config.feature_config.ListFields():
        config.ClearField("feature_config")
    for feature in config.features:
        if not feature.feature_name and feature.input_names:
            feature.feature_name = feature.input_names[0]


def _expand_input_fields(config: pipeline_pb2.EasyRecConfig, root: Node, problems: list[Problem]) -> None:
    data = config.data_config
    if not data.auto_expand_input_fields:
        return

    def rename(field: Message, name: str) -> None:
        field.input_name = name  # type: ignore[attr-defined]

    node = root.child("data_config") or Node()
    _expand(data.input_fields, "input_fields", node, lambda field: field.input_name, rename, "data_config", problems)
    data.ClearField("auto_expand_input_fields")


def _clone_shared(config: pipeline_pb2.EasyRecConfig, root: Node, problems: list[Problem]) -> None:
    if not any(feature.shared_names for feature in config.features):
        return
    nodes = root.children["features"]
    features: list[Any] = []
    feature_nodes: list[Node] = []
    paths = schema.item_paths("features", config.features)
    for feature, node, path in zip(config.features, _fit(nodes, len(config.features), root), paths, strict=True):
        shared = list(feature.shared_names)
        template = type(feature)()
        template.CopyFrom(feature)
        template.ClearField("shared_names")
        if feature.input_names:  # a feature without a column of its own is only the template of the others
            features.append(template)
            feature_nodes.append(node)
        for name in shared:
            for column in _expanded(name, f"{path}.shared_names", problems):
                clone = type(feature)()
                clone.CopyFrom(template)
                clone.feature_name = column
                clone.input_names[:] = [column]
                features.append(clone)
                feature_nodes.append(node)
    config.ClearField("features")
    config.features.extend(features)
    nodes[:] = feature_nodes


def _expand_groups(config: pipeline_pb2.EasyRecConfig, root: Node, problems: list[Problem]) -> None:
    literal = {feature.feature_name for feature in config.features}
    model = root.child("model_config") or Node()
    groups = config.model_config.feature_groups
    for index, (group, path) in enumerate(
        zip(groups, schema.item_paths("model_config.feature_groups", groups), strict=True)
    ):
        if all(name in literal or not _RANGE.fullmatch(name) for name in group.feature_names):
            continue
        node = model.child("feature_groups", index) or Node()
        nodes = _fit(node.children.setdefault("feature_names", []), len(group.feature_names), node)
        names: list[str] = []
        name_nodes: list[Node] = []
        for name, name_node in zip(group.feature_names, nodes, strict=True):
            written_out = [name] if name in literal else _expanded(name, f"{path}.feature_names", problems)
            names += written_out
            name_nodes += [name_node] * len(written_out)
        group.feature_names[:] = names
        nodes[:] = name_nodes


def _expand(
    items: Any,
    name: str,
    parent: Node,
    read: Callable[[Any], str],
    rename: Callable[[Any, str], None],
    path: str,
    problems: list[Problem],
) -> None:
    """Writes out the ranges in the names of repeated messages."""
    if not any(_RANGE.fullmatch(read(item)) for item in items):
        return
    nodes = _fit(parent.children.setdefault(name, []), len(items), parent)
    copies: list[Any] = []
    copy_nodes: list[Node] = []
    for item, node in zip(items, nodes, strict=True):
        for written_out in _expanded(read(item), f"{path}.{name}[{schema.format_key(read(item))}]", problems):
            copy = type(item)()
            copy.CopyFrom(item)
            rename(copy, written_out)
            copies.append(copy)
            copy_nodes.append(node)
    del items[:]
    items.extend(copies)
    nodes[:] = copy_nodes


def _expanded(name: str, path: str, problems: list[Problem]) -> list[str]:
    names = expand_range(name)
    if names is None:
        problems.append(Problem(path, f"the range {quote(name)}", f"a range like f[1-9], of at most {MAX_RANGE} names"))
        return [name]
    return names


def _fit(nodes: list[Node], length: int, parent: Node) -> list[Node]:
    """As many nodes as there are values: those that are missing stand where their parent does."""
    del nodes[length:]
    nodes += [Node(parent.location) for _ in range(length - len(nodes))]
    return nodes
