"""Populations for the drift benchmark: rows in the order of time, encoded by the features of a config."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from easyrec_lite import features
from easyrec_lite.config import load_config
from easyrec_lite.features import Ids, Numbers, Profile, Statistics, build_features
from easyrec_lite.inputs.batch import Ragged, to_batch
from easyrec_lite.inputs.rows import typed
from easyrec_lite.inputs.schema import find_arrow, resolve
from easyrec_lite.protos import data_pb2
from easyrec_lite.streaming.drift import WatchedBatch
from tools._kafka_rows import Files
from tools.bench import _common
from tools.data._ads_population import event_times
from tools.data.taobao_like import Generator, Parameters

LABEL, TIME = "clk", "event_time"
_OLD = 28  # days that the service has run: in the first weeks all histories grow
_REFERENCE_DAYS, _STREAM_DAYS = 14.0, 4.0
_REFERENCE = 1.75  # rows of the reference, over those of the stream: half as dense
_USERS, _ITEMS = 100_000, 50_000


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows in the order of time.

    Attributes:
        table: gives the rows from the first number to before the second.
        reference: how many of the first are the reference.
        total: how many there are.
    """

    table: Callable[[int, int], pa.Table]
    reference: int
    total: int


def generated(seed: int, stream: int) -> Rows:
    """Rows of a population of its own: two weeks as reference, then `stream` rows in four days.

    The weeks of seed s begin s days later, so that some streams run over a weekend.
    """
    reference = round(stream * _REFERENCE)
    total = reference + stream
    generator = Generator(Parameters(total, 1, _USERS, _ITEMS, seed))
    begin = (_OLD + seed % 7) * 86_400

    def table(start: int, stop: int) -> pa.Table:
        row = np.arange(start, stop)
        before, after = row[row < reference], row[row >= reference] - reference
        times = np.concatenate(
            [
                event_times(before, reference, _REFERENCE_DAYS, seed),
                event_times(after, stream, _STREAM_DAYS, seed + 1) + round(_REFERENCE_DAYS * 86_400),
            ]
        )
        times += begin
        seen = generator.population.impressions(row, times)
        viewed = generator.population.histories(seen)
        return generator.table(seen, viewed, generator.model.labels(seen, viewed))

    return Rows(table, reference, total)


def read(folder: str) -> Rows:
    """Rows of the generator's files, eleven days: the first seven as reference."""
    files = [Files(f"{folder}/{part}") for part in ("train", "eval")]
    total = sum(file.rows for file in files)
    everything = pa.concat_tables(
        chunk for file in files for chunk in file.chunks(list(files[0].columns), 0, file.rows)
    ).combine_chunks()
    reference = round(total * 7 / 11)
    return Rows(lambda start, stop: everything.slice(start, stop - start), reference, total)


class Encoder:
    """Encodes raw rows by the features of the streaming sample config, as training does.

    Args:
        schema: of the rows.
    """

    def __init__(self, schema: pa.Schema) -> None:
        config = load_config(_common.SAMPLES / "multi_tower_taobao_stream.config", checks=(features.check,)).message
        self._features = build_features(config)
        self._columns = list(dict.fromkeys(name for feature in self._features.values() for name in feature.inputs))
        find = find_arrow(schema, "the rows")
        self._specs = resolve(data_pb2.DatasetConfig(), schema.names, self._columns, find, "the rows")
        self._encode = tf.function(self._features_of, reduce_retracing=True)

    def _features_of(self, columns: dict[str, Any]) -> dict[str, Any]:
        return {name: feature.encode(columns) for name, feature in self._features.items()}

    def __call__(self, rows: pa.Table) -> WatchedBatch:
        """A batch of these rows."""
        block = {name: rows[name].combine_chunks() for name in self._columns}
        raw = to_batch(typed(block, self._specs)[0], self._specs, _NOWHERE)
        columns = {
            name: tf.RaggedTensor.from_row_splits(column.values, column.row_splits, validate=False)
            if isinstance(column, Ragged)
            else tf.constant(np.asarray(column))
            for name, column in raw.columns.items()
        }
        encoded = {name: _numpy(output) for name, output in self._encode(columns).items()}
        missing = {
            name: raw.missing.get(feature.inputs[0], 0)
            for name, feature in self._features.items()
            if feature.inputs[0] in raw.missing and len(feature.inputs) == 1
        }
        times = rows[TIME].to_numpy().astype(np.float64)
        labels = {LABEL: rows[LABEL].to_numpy().astype(np.float32)}
        return WatchedBatch(rows.num_rows, encoded, labels, missing, (times.min(), times.max()), times)


class _Nowhere:
    def to_json(self) -> str:
        return "{}"


_NOWHERE = _Nowhere()


class _RaggedArrays:
    def __init__(self, ragged: tf.RaggedTensor) -> None:
        self.flat_values, self.row_splits = ragged.flat_values.numpy(), ragged.row_splits.numpy()


def _numpy(output: Ids | Numbers) -> Ids | Numbers:
    values = output[0]
    arrays: Any = _RaggedArrays(values) if isinstance(values, tf.RaggedTensor) else values.numpy()
    return Ids(arrays) if isinstance(output, Ids) else Numbers(arrays)


def profile_of(rows: Rows, encode: Encoder, at_once: int) -> Profile:
    """The statistics of the reference, as training writes them."""
    statistics = Statistics()
    for batch in batches(rows, encode, 0, rows.reference, at_once):
        statistics.update(batch.encoded, batch.labels, batch.times, batch.missing)
    return Profile.from_json(statistics.to_json())


def batches(rows: Rows, encode: Encoder, start: int, stop: int, size: int) -> Iterator[WatchedBatch]:
    """Encoded rows."""
    for first in range(start, stop, size):
        yield encode(rows.table(first, min(first + size, stop)))
