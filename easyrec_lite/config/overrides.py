"""Changes to a config from the command line: `path=value`, and EasyRec's {path: value} JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from google.protobuf.message import Message

from easyrec_lite.config import schema
from easyrec_lite.config.binding import MismatchError, Node, bind_value, convert
from easyrec_lite.config.json_syntax import parse_json, parse_json_value
from easyrec_lite.config.problems import ConfigError, Location, Problem, quote
from easyrec_lite.config.syntax import ListValue, Scalar, Value, parse_text
from easyrec_lite.config.targets import AnyTarget, StructTarget, Target, find, route

Overrides = Sequence[str] | Mapping[str, object]


def apply_overrides(message: Message, overrides: Overrides) -> None:
    """Sets fields of a canonical config, or raises ConfigError with everything that is wrong with the overrides.

    Args:
        message: the config; changed in place.
        overrides: "path=value" texts, or a mapping of paths to Python values as EasyRec's `--edit_config_json` has
            it. A value is read according to its field: 3, 0.5, true, an enum's name, text with or without quotes,
            [a, b] for a list, { ... } in text format for a block, JSON for a Struct. `a;b` sets both paths.
    """
    problems = override(message, Node(), overrides)
    if problems:
        raise ConfigError(problems)


def override(message: Message, root: Node, overrides: Overrides) -> list[Problem]:
    """Sets fields and notes their new places in `root`; returns the problems."""
    problems: list[Problem] = []
    items: list[tuple[str, object, str]] = []
    if isinstance(overrides, Mapping):
        items = [(paths, value, f"override {paths}") for paths, value in overrides.items()]
    else:
        for text in overrides:
            paths, found, written = _split(text)
            if not found:
                problems.append(Problem(text, quote(text), "path=value").at(Location(f"override {text}", 1, 1)))
                continue
            items.append((paths, _Text(written), f"override {text}"))
    for paths, value, source in items:
        for path in _split_paths(paths):
            place = Location(source, 1, 1)
            try:
                targets = find(message, path)
                if not targets:
                    problems.append(Problem(path, "nothing that the path leads to", "at least one field").at(place))
                for target in targets:
                    problems += [problem.at(place) for problem in _set(target, value, source)]
                    _note(message, root, target, place)
            except ConfigError as error:
                problems += [problem.at(place) for problem in error.problems]
    return problems


class _Text(str):
    """A value still to be read, as opposed to a Python string of the JSON form."""


def _split(text: str) -> tuple[str, bool, str]:
    """Splits "path=value" at the first '=' outside of brackets."""
    depth = 0
    for index, char in enumerate(text):
        depth += {"[": 1, "]": -1}.get(char, 0)
        if char == "=" and depth <= 0:
            return text[:index].strip(), bool(text[:index].strip()), text[index + 1 :].strip()
    return text, False, ""


def _split_paths(text: str) -> list[str]:
    """EasyRec joins several paths by ';'."""
    paths, depth = [""], 0
    for char in text:
        depth += {"[": 1, "]": -1}.get(char, 0)
        if char == ";" and depth <= 0:
            paths.append("")
        else:
            paths[-1] += char
    return [path for path in paths if path.strip()] or [text]


def _set(target: AnyTarget, value: object, source: str) -> list[Problem]:
    if isinstance(target, StructTarget):
        return _set_in_struct(target, value)
    problems: list[Problem] = []
    if isinstance(value, _Text):
        syntax, problems = _read(target, value, source)
    else:
        try:
            text = json.dumps(value)
        except (TypeError, ValueError):
            return [Problem(target.path, quote(value), "a value that JSON knows")]
        syntax = parse_json_value(text, source)
    if problems or syntax is None:
        return problems or [Problem(target.path, "null", schema.describe_type(target.field))]
    if target.index is None:
        bind_value(target.field, syntax, target.parent, problems, target.path)
        return problems
    # An item of a list: read it into an empty message of the parent's type, then put it in its place.
    scratch = type(target.parent)()
    if isinstance(syntax, Scalar) and target.field.message_type is None:
        try:
            target.set(convert(target.field, syntax))
        except MismatchError as mismatch:
            problems.append(Problem(target.path, mismatch.found, mismatch.expected, mismatch.hint))
        return problems
    bind_value(target.field, syntax, scratch, problems, target.path)
    items = getattr(scratch, target.field.name)
    if not problems and len(items) == 1:
        target.set(items[0])
    elif not problems:
        problems.append(Problem(target.path, f"a list of {len(items)}", "one value: the path names an item"))
    return problems


def _read(target: AnyTarget, text: str, source: str) -> tuple[Value | None, list[Problem]]:
    """Reads a value by the text format, with the quotes of a single text left away."""
    place = Location(source, 1, 1)
    field = target.field
    if schema.is_struct(field):
        return parse_json(text, source)
    if field.message_type is None and not text.startswith("["):
        if text[:1] in ('"', "'"):
            block, problems = parse_text(f"value: {text}", source)
            return (block.entries[0].value if block.entries else None), problems
        data = text.encode() if field.cpp_type == field.CPPTYPE_STRING else None
        return Scalar(text, data, place), []
    bare_words = field.message_type is None and field.cpp_type == field.CPPTYPE_STRING
    block, problems = parse_text(f"value: {text}" if text[:1] in "[{<" else f"value {{ {text} }}", source)
    if len(block.entries) != 1 and not problems:
        problems.append(Problem(target.path, quote(text), f"one value, {schema.describe_type(field)}"))
    value = block.entries[0].value if block.entries else None
    return (_with_strings(value) if bare_words and value is not None else value), problems


def _with_strings(value: Value) -> Value:
    """[a, b] of a list of texts means ["a", "b"]."""
    if isinstance(value, Scalar):
        return value if value.data is not None else Scalar(value.text, value.text.encode(), value.location)
    if isinstance(value, ListValue):
        return ListValue(tuple(_with_strings(item) for item in value.items), value.location)
    return value


def _set_in_struct(target: StructTarget, value: object) -> list[Problem]:
    if isinstance(value, _Text):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = str(value)
    try:
        target.set(value)
    except (KeyError, IndexError, TypeError, ValueError, json.JSONDecodeError) as error:
        return [Problem(target.path, f"no such place in the Struct: {error}", "a name or an index that exists")]
    return []


def _note(message: Message, root: Node, target: AnyTarget, place: Location) -> None:
    """Records the override as the place of what it set."""
    node, steps = root, route(message, target.path)
    for number, (name, index) in enumerate(steps):
        nodes = node.children.setdefault(name, [])
        nodes += [Node(node.location) for _ in range(index + 1 - len(nodes))]
        if number == len(steps) - 1:
            whole = isinstance(target, Target) and target.is_list
            nodes[:] = (
                [Node(place) for _ in target.get()] if whole else [*nodes[:index], Node(place), *nodes[index + 1 :]]
            )
        node = nodes[index] if index < len(nodes) else node
