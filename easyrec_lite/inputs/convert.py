"""Cells to typed columns, a whole column at a time; a cell that can't be read costs its row, nothing else.

The policy, the same for every format:

* empty cells of text files, nulls, NaN ("nan" in text) and `ignore_val` are missing; the column's default fills them;
* infinities are unusable, and so are numbers whose float32 is infinite;
* whole numbers outside INT32 or INT64 as declared, 2.5 for a whole number, and text that isn't UTF-8 are unusable;
* blanks around numbers and a leading `+` are fine;
* times become whole seconds since 1970 (UTC; a time without zone counts as UTC), rounded down;
* event times of the year 2100 and later are unusable: they are milliseconds, and one is enough to end all windows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from easyrec_lite.inputs.schema import ColumnSpec, Kind, is_text
from easyrec_lite.protos import data_pb2

_INT32_RANGE = (-(2**31), 2**31 - 1)
_ARROW_TYPES = {Kind.INT: pa.int64(), Kind.FLOAT: pa.float32(), Kind.TEXT: pa.string()}
_PLAIN_TYPES = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), bytes: pa.binary()}
# Text that can be cast to the type for sure.
_PLAIN_TEXTS = {
    pa.bool_(): "^(true|false|0|1)$",
    pa.int64(): r"^-?\d{1,18}$",
    pa.float32(): r"^-?\d{1,18}(\.\d{1,18})?$",
}
TIMES_END = 4_102_444_800  # seconds since 1970: the year 2100
EXACT_FLOATS = 2**53  # float64 holds every whole number below
_Bad = np.ndarray | None  # bool [rows], or None where every cell is fine


def convert(raw: pa.Array, spec: ColumnSpec) -> tuple[pa.Array, _Bad]:
    """Types one column.

    Args:
        raw: The cells, as the file has them.
        spec: What they become.

    Returns:
        An int64, float32 or string array (a list of these for a ragged column), null where a cell is missing, and which
        rows hold a cell that can't be read.
    """
    if pa.types.is_dictionary(raw.type):
        raw = raw.dictionary_decode()
    if not spec.ragged:
        return _values(raw, spec)
    if pa.types.is_fixed_size_list(raw.type):
        raw = raw.cast(pa.list_(raw.type.value_type))
    lengths = pc.fill_null(pc.list_value_length(raw), 0).to_numpy(zero_copy_only=False)
    splits = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    flat = raw.flatten()
    if pa.types.is_dictionary(flat.type):
        flat = flat.dictionary_decode()
    values, bad = _values(flat, spec, ignore=False)
    return _lists(values, bad, splits, raw.is_null() if raw.null_count else None, spec)


def convert_objects(cells: Sequence[object], spec: ColumnSpec) -> tuple[pa.Array, _Bad]:
    """Types one column of Python values, which may differ in their types; each is read as `convert` reads its like.

    Args:
        cells: None, bool, int, float, str or bytes, or lists of these for a ragged column. Anything else is unusable.
        spec: What they become.

    Returns:
        As `convert`. Whole numbers are exact whatever their size; floats that are whole count as whole numbers.
    """
    if not spec.ragged:
        return _objects(cells, spec)
    lists = [cell if isinstance(cell, list) else [] for cell in cells]
    splits = np.concatenate([[0], np.cumsum([len(cell) for cell in lists], dtype=np.int64)])
    values, bad = _objects([value for cell in lists for value in cell], spec, ignore=False)
    nulls = np.array([cell is None for cell in cells], bool)
    others = np.array([not isinstance(cell, list) for cell in cells], bool) & ~nulls
    array, bad_rows = _lists(values, bad, splits, pa.array(nulls) if nulls.any() else None, spec)
    return array, _either(bad_rows, others if others.any() else None)


def as_read(raw: pa.Array) -> tuple[pa.Array, _Bad]:
    """Cells to hand on: as the file has them, bytes as text; and which rows hold bytes that aren't UTF-8."""
    if pa.types.is_dictionary(raw.type):
        raw = raw.dictionary_decode()
    return _cast(raw, pa.string()) if is_text(raw.type) else (raw, None)


def why(spec: ColumnSpec) -> str:
    """What to say of a cell that couldn't be read."""
    if spec.event_time and spec.kind is not Kind.TEXT:
        wanted_time = f"a time before the year 2100 in seconds since 1970 ({spec.type_name})"
        return f"is not {wanted_time}; milliseconds are too large"
    wanted = {Kind.INT: f"a whole number ({spec.type_name})", Kind.FLOAT: "a finite number", Kind.TEXT: "UTF-8 text"}
    inferred = spec.kind is Kind.INT and not spec.declared
    hint = ", a type inferred from the data; declare another in data_config.input_fields" if inferred else ""
    return f"is not {wanted[spec.kind]}{hint}"


def _lists(
    values: pa.Array, bad: _Bad, splits: np.ndarray, nulls: pa.Array | None, spec: ColumnSpec
) -> tuple[pa.Array, _Bad]:
    """Lists of typed values: missing ones filled, ignored ones left out; a bad value makes its row bad."""
    values = pc.fill_null(values, pa.scalar(spec.default, values.type))
    bad_rows = None
    if bad is not None:
        bad_rows = np.zeros(len(splits) - 1, bool)
        bad_rows[np.searchsorted(splits, np.flatnonzero(bad), side="right") - 1] = True
    if spec.ignore is not None:
        keep = pc.not_equal(values, pa.scalar(spec.ignore, values.type))
        splits = np.concatenate([[0], np.cumsum(keep.to_numpy(zero_copy_only=False))])[splits]
        values = values.filter(keep)
    return pa.ListArray.from_arrays(pa.array(splits, pa.int32()), values, mask=nulls), bad_rows


def _objects(cells: Sequence[object], spec: ColumnSpec, *, ignore: bool = True) -> tuple[pa.Array, _Bad]:
    """Python values, each type among them converted for itself."""
    bad: _Bad = None
    typed: list[pa.Array] = []
    plain = [_plain(cell, spec.kind) for cell in cells]
    for type_ in dict.fromkeys(type(cell) for cell in plain):
        same = [cell if type(cell) is type_ else None for cell in plain]
        if type_ in _PLAIN_TYPES:
            values, worse = _values(pa.array(same, _PLAIN_TYPES[type_]), spec, ignore=ignore)
            typed.append(values)
            bad = _either(bad, worse)
        elif type_ is not type(None):
            bad = _either(bad, np.array([cell is not None for cell in same], bool))
    if not typed:
        return pa.nulls(len(cells), _ARROW_TYPES[spec.kind]), bad
    return pc.coalesce(*typed), bad


def _plain(cell: object, kind: Kind) -> object:
    """The value as a type that Arrow holds exactly: text as bytes, and so whole numbers beyond 64 bits."""
    if isinstance(cell, str):
        return cell.encode("utf-8", "surrogatepass")  # half a surrogate pair is then no UTF-8
    if type(cell) is float and kind is not Kind.FLOAT and cell.is_integer() and abs(cell) < EXACT_FLOATS:
        return int(cell)
    if type(cell) is int and not -(2**63) <= cell < 2**63:
        return float(cell) if kind is Kind.FLOAT and cell.bit_length() < 1024 else str(cell).encode()
    return cell


def _values(raw: pa.Array, spec: ColumnSpec, *, ignore: bool = True) -> tuple[pa.Array, _Bad]:
    if pa.types.is_null(raw.type):
        return raw.cast(_ARROW_TYPES[spec.kind]), None
    values, bad = {Kind.INT: _ints, Kind.FLOAT: _floats, Kind.TEXT: _text}[spec.kind](raw, spec)
    if ignore and spec.ignore is not None:
        same = pc.equal(values, pa.scalar(spec.ignore, values.type))
        values = pc.if_else(pc.fill_null(same, False), pa.scalar(None, values.type), values)
    if spec.event_time and spec.kind is not Kind.TEXT:
        end = pa.scalar(TIMES_END).cast(values.type, safe=False)
        late = pc.fill_null(pc.greater_equal(values, end), False)
        bad = _either(bad, late.to_numpy(zero_copy_only=False))
    return values, bad


def _text(raw: pa.Array, spec: ColumnSpec) -> tuple[pa.Array, _Bad]:
    if pa.types.is_string(raw.type):
        return raw, None
    if pa.types.is_fixed_size_binary(raw.type):
        raw = raw.cast(pa.binary())
    if pa.types.is_floating(raw.type):
        return _float_text(_nan_to_null(raw)), None
    return _cast(raw, pa.string())


def _float_text(values: pa.Array) -> pa.Array:
    """Floats as text: whole ones as whole numbers, for an id is the same id if other rows of its file lack one."""
    values = values.cast(pa.float64()) if pa.types.is_float16(values.type) else values
    whole = pc.and_(
        pc.equal(pc.floor(values), values), pc.less(pc.abs(values), pa.scalar(float(EXACT_FLOATS), values.type))
    )
    numbers = pc.if_else(whole, values, pa.scalar(0, values.type)).cast(pa.int64())
    return pc.if_else(whole, numbers.cast(pa.string()), values.cast(pa.string()))


def _ints(raw: pa.Array, spec: ColumnSpec) -> tuple[pa.Array, _Bad]:
    types, bad = pa.types, None
    boolean = spec.type == data_pb2.DatasetConfig.BOOL
    if is_text(raw.type):
        raw, bad = _text(raw, spec)
        values, worse = _parse(raw, pa.bool_() if boolean else pa.int64())
        bad = _either(bad, worse)
        values = values.cast(pa.int64())
    elif types.is_date32(raw.type):
        values = pc.multiply(raw.cast(pa.int32()).cast(pa.int64()), 86_400)
    elif types.is_timestamp(raw.type) or types.is_date64(raw.type):
        unit = "ms" if types.is_date64(raw.type) else raw.type.unit
        values = _floor_divide(raw.cast(pa.int64()), {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit])
    else:
        values, bad = _cast(_nan_to_null(raw), pa.int64())
    if boolean:
        values = pc.not_equal(values, 0).cast(pa.int64())
    if spec.type == data_pb2.DatasetConfig.INT32 and len(values) > values.null_count:
        low, high = _INT32_RANGE
        smallest, largest = pc.min_max(values).as_py().values()
        if smallest < low or largest > high:
            outside = pc.or_(pc.less(values, low), pc.greater(values, high))
            bad = _either(bad, pc.fill_null(outside, False).to_numpy(zero_copy_only=False))
    return values, bad


def _floats(raw: pa.Array, spec: ColumnSpec) -> tuple[pa.Array, _Bad]:
    bad = None
    if is_text(raw.type):
        raw, bad = _text(raw, spec)
        values, worse = _parse(raw, pa.float32())
        bad = _either(bad, worse)
    elif pa.types.is_timestamp(raw.type) or pa.types.is_date(raw.type):
        values = _ints(raw, spec)[0].cast(pa.float32(), safe=False)
    else:
        raw = raw.cast(pa.float64()) if pa.types.is_decimal(raw.type) else raw
        values = raw.cast(pa.float32(), safe=False)
    values = _nan_to_null(values)
    infinite = pc.is_inf(values)
    if pc.any(infinite).as_py():
        bad = _either(bad, pc.fill_null(infinite, False).to_numpy(zero_copy_only=False))
    return values, bad


def _parse(text: pa.Array, type_: pa.DataType) -> tuple[pa.Array, _Bad]:
    """Text to numbers. Cells that aren't plain are looked at only where reading all fails, for they are rare."""
    try:
        return text.cast(type_), None
    except pa.ArrowInvalid:
        plain = pc.fill_null(pc.match_substring_regex(text, _PLAIN_TEXTS[type_]), True)
    odd = np.flatnonzero(~plain.to_numpy(zero_copy_only=False))
    bare = pc.replace_substring_regex(pc.utf8_trim_whitespace(text.take(pa.array(odd))), r"^\+(\d)", r"\1")
    others, bad_others = _cast(pc.if_else(pc.equal(bare, ""), pa.scalar(None, pa.string()), bare), type_)
    values, bad = _cast(pc.if_else(plain, text, pa.scalar(None, pa.string())), type_)
    if bad_others is not None:
        bad = np.zeros(len(text), bool) if bad is None else bad
        bad[odd] = bad_others
    return pc.replace_with_mask(values, pc.invert(plain), others), bad


def _cast(values: pa.Array, type_: pa.DataType) -> tuple[pa.Array, _Bad]:
    """Casts, halving the array where that fails until only the cells at fault are left; those become null."""
    try:
        return values.cast(type_), None
    except pa.ArrowInvalid:
        if len(values) == 1:
            return pa.nulls(1, type_), np.ones(1, bool)
    half = len(values) // 2
    (left, left_bad), (right, right_bad) = _cast(values[:half], type_), _cast(values[half:], type_)
    bad = np.zeros(len(values), bool)
    bad[:half] = False if left_bad is None else left_bad
    bad[half:] = False if right_bad is None else right_bad
    return pa.concat_arrays([left, right]), bad


def _nan_to_null(values: pa.Array) -> pa.Array:
    if not pa.types.is_floating(values.type):
        return values
    nan = pc.is_nan(values)
    return pc.if_else(nan, pa.scalar(None, values.type), values) if pc.any(nan).as_py() else values


def _floor_divide(values: pa.Array, by: int) -> pa.Array:
    whole = pc.fill_null(values, 0).to_numpy(zero_copy_only=False) // by
    return pa.array(whole, mask=values.is_null().to_numpy(zero_copy_only=False))


def _either(one: _Bad, other: _Bad) -> _Bad:
    return other if one is None else one if other is None else one | other
