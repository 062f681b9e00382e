"""Messages decoded by columns that a test names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from easyrec_lite.inputs.messages import Decoded, build_decoder
from easyrec_lite.protos import data_pb2


def decode_as(
    format_: data_pb2.KafkaServer.ValueFormat,
    values: Sequence[bytes | None],
    required: Sequence[str] = (),
    **fields: str,
) -> Decoded:
    """Decodes messages; fields are types by column, with an "s" at the end for lists."""
    config = data_pb2.DatasetConfig()
    for name, type_ in fields.items():
        is_list = type_.endswith("s") or None
        config.input_fields.add(input_name=name, input_type=type_.removesuffix("s"), list=is_list)
    return build_decoder(config, format_, None, required).decode(list(values))


def cells_as(format_: data_pb2.KafkaServer.ValueFormat, type_: str, values: Sequence[bytes | None]) -> list[Any]:
    """What becomes of the column x of messages with a row each; "bad" where the row is unusable."""
    decoded = decode_as(format_, values, x=type_)
    found = dict(zip(decoded.message.tolist(), decoded.rows.column(0).to_pylist(), strict=True))
    # The same alone: how others are written has no influence.
    for at, value in enumerate(values):
        alone = decode_as(format_, [value], x=type_).rows.column(0).to_pylist()
        assert alone == ([found[at]] if at in found else [])
    return [found.get(at, "bad") for at in range(len(values))]
