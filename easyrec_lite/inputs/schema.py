"""Which columns are read, as what: declared by `data_config.input_fields`, or inferred from the files."""

from __future__ import annotations

import difflib
import enum
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from easyrec_lite.config import ConfigError, Problem
from easyrec_lite.protos import data_pb2

_Field = data_pb2.DatasetConfig
_INT_RANGES: dict[int, tuple[int, int]] = {_Field.INT32: (-(2**31), 2**31 - 1), _Field.INT64: (-(2**63), 2**63 - 1)}
_BOOLS = {"true": 1, "1": 1, "false": 0, "0": 0}


class Kind(enum.Enum):
    """What a column becomes."""

    INT = "int64"
    FLOAT = "float32"
    TEXT = "string"


_KINDS: dict[int, Kind] = {
    _Field.INT32: Kind.INT,
    _Field.INT64: Kind.INT,
    _Field.BOOL: Kind.INT,
    _Field.FLOAT: Kind.FLOAT,
    _Field.DOUBLE: Kind.FLOAT,
    _Field.STRING: Kind.TEXT,
}


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """How one column is read.

    Attributes:
        name: Its name.
        type: A `DatasetConfig.FieldType`, declared or inferred.
        default: What fills missing cells.
        ragged: Each row holds a list.
        ignore: A value that counts as missing; in a list it is left out.
        declared: Whether the type stands in the config.
        event_time: Whether it holds event times, seconds since 1970.
    """

    name: str
    type: int
    default: int | float | str
    ragged: bool = False
    ignore: int | float | str | None = None
    declared: bool = True
    event_time: bool = False

    @property
    def kind(self) -> Kind:
        """What the column becomes."""
        return _KINDS[self.type]

    @property
    def type_name(self) -> str:
        """The type, as a config spells it."""
        return str(_Field.FieldType.Name(self.type))


@dataclass(frozen=True, slots=True)
class Found:
    """A column as the files have it: the type that its cells suggest, and whether they are lists."""

    type: int
    ragged: bool = False


def parse(text: str, field_type: int) -> int | float | str:
    """Reads one value as the config writes it; raises ValueError if it isn't of that type."""
    if field_type == _Field.STRING:
        return text
    if field_type == _Field.BOOL:
        if text.strip().lower() not in _BOOLS:
            raise ValueError(text)
        return _BOOLS[text.strip().lower()]
    if field_type in _INT_RANGES:
        low, high = _INT_RANGES[field_type]
        value = int(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def resolve(
    config: data_pb2.DatasetConfig,
    available: Sequence[str],
    columns: Iterable[str] | None,
    find: Callable[[str], Found],
    place: str,
) -> dict[str, ColumnSpec]:
    """Decides how each wanted column is read; what the config declares overrides what the files suggest.

    Args:
        config: Declares columns in its input_fields, and names that of the event time.
        available: The columns that the files have.
        columns: The wanted ones; None means the declared ones, or all if none is declared.
        find: Looks a column up in the files.
        place: The file, for messages.

    Raises:
        ConfigError: Columns that aren't there or are there twice, types that can't be read, defaults that don't parse;
            all of them at once.
    """
    declared = {field.input_name: field for field in config.input_fields}
    names = list(dict.fromkeys(columns if columns is not None else declared or available))
    problems: list[Problem] = []
    specs: dict[str, ColumnSpec] = {}
    for name in names:
        try:
            spec = _column(name, declared.get(name), available, find, place)
            specs[name] = replace(spec, event_time=name == config.event_time_field)
        except ConfigError as error:
            problems += error.problems
    if not names:
        problems.append(Problem("data_config.input_fields", "no column to read", "at least one column"))
    if problems:
        raise ConfigError(problems)
    return specs


def _column(
    name: str,
    field: data_pb2.DatasetConfig.Field | None,
    available: Sequence[str],
    find: Callable[[str], Found],
    place: str,
) -> ColumnSpec:
    path = f"data_config.input_fields[{name}]" if field is not None else "data_config.input_fields"
    if (count := list(available).count(name)) != 1:
        near = difflib.get_close_matches(name, available, n=1)
        some = ", ".join(available[:20]) + (", ..." if len(available) > 20 else "")
        found = f"column {name!r}, which {place} has {count} times" if count else f"column {name!r}, not in {place}"
        hint = "give the columns different names" if count else f"did you mean {near[0]!r}?" if near else ""
        raise ConfigError([Problem(path, found, f"one of its columns: {some}", hint)])
    found_type = find(name)
    type_ = field.input_type if field is not None else found_type.type

    def value(option: str, text: str) -> int | float | str:
        try:
            return parse(text, type_)
        except ValueError:
            wanted = f"a finite {_Field.FieldType.Name(type_)}"
            raise ConfigError([Problem(f"{path}.{option}", repr(text), wanted)]) from None

    default: int | float | str = "" if type_ == _Field.STRING else 0
    ignore = None
    if field is not None and field.default_val:
        default = value("default_val", field.default_val)
    if field is not None and field.HasField("ignore_val"):
        ignore = value("ignore_val", field.ignore_val)
    return ColumnSpec(name, type_, default, found_type.ragged, ignore, field is not None)


def find_arrow(schema: pa.Schema, place: str) -> Callable[[str], Found]:
    """Looks columns up in the schema of Parquet files or frames."""
    types = pa.types

    def suggest(name: str, type_: pa.DataType) -> Found:
        if types.is_dictionary(type_):
            return suggest(name, type_.value_type)
        if types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_):
            inner = suggest(name, type_.value_type)
            if not inner.ragged:
                return Found(inner.type, ragged=True)
        elif types.is_integer(type_) or types.is_boolean(type_) or types.is_timestamp(type_) or types.is_date(type_):
            return Found(_Field.INT64)
        elif types.is_floating(type_) or types.is_decimal(type_):
            return Found(_Field.FLOAT)
        elif is_text(type_) or types.is_null(type_):
            return Found(_Field.STRING)
        problem = Problem(
            f"data_config.input_fields[{name}]",
            f"{schema.field(name).type} in {place}",
            "numbers, text, times, or a list of these",
            "flatten the column when the file is written",
        )
        raise ConfigError([problem])

    return lambda name: suggest(name, schema.field(name).type)


def is_text(type_: pa.DataType) -> bool:
    """Whether an Arrow type is text, UTF-8 or not known to be."""
    types = pa.types
    return (
        types.is_string(type_)
        or types.is_large_string(type_)
        or types.is_string_view(type_)
        or types.is_binary(type_)
        or types.is_large_binary(type_)
        or types.is_fixed_size_binary(type_)
    )
