"""Rows: from files and frames to batches of raw columns, with the exact position of every batch."""

from easyrec_lite.inputs.bad_rows import BadRow, BadRows
from easyrec_lite.inputs.batch import Column, HasJson, Ragged, RawBatch
from easyrec_lite.inputs.dataset import Details, as_dataset, input_errors
from easyrec_lite.inputs.errors import InputError, MissingFilesError
from easyrec_lite.inputs.kafka import KafkaSource, open_kafka
from easyrec_lite.inputs.messages import Decoder, build_decoder
from easyrec_lite.inputs.opening import open_source
from easyrec_lite.inputs.position import Position
from easyrec_lite.inputs.schema import ColumnSpec, Kind
from easyrec_lite.inputs.source import Source
from easyrec_lite.inputs.windowed import Peek, WindowedSource

__all__ = [
    "BadRow",
    "BadRows",
    "Column",
    "ColumnSpec",
    "Decoder",
    "Details",
    "HasJson",
    "InputError",
    "KafkaSource",
    "Kind",
    "MissingFilesError",
    "Peek",
    "Position",
    "Ragged",
    "RawBatch",
    "Source",
    "WindowedSource",
    "as_dataset",
    "build_decoder",
    "input_errors",
    "open_kafka",
    "open_source",
]
