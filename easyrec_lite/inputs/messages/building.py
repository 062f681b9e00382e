"""The right decoder for a config."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from easyrec_lite.config import ConfigError, Problem
from easyrec_lite.inputs.cells import separator_of
from easyrec_lite.inputs.messages.arrow_streams import ArrowDecoder
from easyrec_lite.inputs.messages.csv_lines import CsvDecoder
from easyrec_lite.inputs.messages.decoder import Decoder
from easyrec_lite.inputs.messages.examples import ExampleDecoder
from easyrec_lite.inputs.messages.json_objects import JsonDecoder
from easyrec_lite.inputs.schema import Found, Kind, resolve
from easyrec_lite.protos import data_pb2

_Format = data_pb2.KafkaServer
_BY_NAME: dict[int, Callable[..., Decoder]] = {
    _Format.JSON: JsonDecoder,
    _Format.TF_EXAMPLE: ExampleDecoder,
    _Format.ARROW: ArrowDecoder,
}


def build_decoder(
    data_config: data_pb2.DatasetConfig,
    value_format: int,
    columns: Sequence[str] | None = None,
    required: Collection[str] = (),
    limits: Mapping[str, tuple[float, float]] | None = None,
) -> Decoder:
    """Builds the decoder of a message format.

    Args:
        data_config: Its input_fields declare the columns: messages don't say what is in them before they come. For CSV
            they are all the cells of a line, in order, parted by its separator.
        value_format: A `KafkaServer.ValueFormat`.
        columns: The columns to read; None means all declared ones.
        required: Those without which a row can't be used; they are read in any case.
        limits: The smallest and the largest value of a row that can be used, for some of the columns; those that hold
            text or lists have none.

    Raises:
        ConfigError: Columns that aren't declared or are so twice, defaults that don't parse, lists or a separator that
            CSV can't have; all problems at once.
    """
    fields = data_config.input_fields
    declared = [field.input_name for field in fields]
    by_name = {field.input_name: field for field in fields}
    problems: list[Problem] = []
    separator = b""
    if value_format == _Format.CSV:
        for field in fields:
            if field.list:
                hint = "send JSON, Arrow or tf.Example, or declare a STRING and split it in the feature"
                path = f"data_config.input_fields[{field.input_name}].list"
                problems.append(Problem(path, "true, with messages of CSV", "single values", hint))
        try:
            separator = separator_of(data_config)
        except ConfigError as error:
            problems += error.problems
    wanted = None if columns is None else [*columns, *sorted(set(required) - set(columns))]
    if wanted is None and (more := sorted(set(required) - set(declared))):
        wanted = [*declared, *more]
    try:
        specs = resolve(
            data_config,
            declared,
            wanted,
            lambda name: Found(by_name[name].input_type, by_name[name].list),
            "data_config.input_fields",
        )
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems]) from None
    if problems:
        raise ConfigError(problems)
    limits = {
        name: limit
        for name, limit in (limits or {}).items()
        if name in specs and specs[name].kind is not Kind.TEXT and not specs[name].ragged
    }
    if value_format == _Format.CSV:
        return CsvDecoder(specs, required, limits, separator=separator, header=declared)
    return _BY_NAME[value_format](specs, required, limits)
