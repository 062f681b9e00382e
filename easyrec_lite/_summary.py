"""What a config describes, as tables for people: data flow, features, embedding tables, parameters, first rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from easyrec_lite._sources import required_columns
from easyrec_lite.embeddings import Concat
from easyrec_lite.features import Ids
from easyrec_lite.inputs import BadRows, MissingFilesError, WindowedSource, as_dataset, input_errors, open_source
from easyrec_lite.models import Recommender
from easyrec_lite.protos import data_pb2, feature_pb2, pipeline_pb2

Table = tuple[str, tuple[str, ...], list[tuple[Any, ...]]]


def tables(config: pipeline_pb2.EasyRecConfig, recommender: Recommender) -> Iterable[Table]:
    """Summaries of a checked config and its model; the tables need no memory of their own."""
    data = config.data_config
    yield "Data flow", ("from", "to"), _flow(config, recommender)
    groups: dict[str, list[str]] = {}
    for layout in recommender.layouts.values():
        for slot in layout.slots:
            groups.setdefault(slot.name, []).append(layout.name)
    sides = {
        field.input_name: data_pb2.DatasetConfig.Side.Name(field.side) for field in data.input_fields if field.side
    }
    rows = []
    for name, feature in recommender.features.items():
        kind = feature_pb2.FeatureConfig.FeatureType.Name(feature.config.feature_type)
        found = {sides.get(column, "?") for column in feature.inputs}
        side = found.pop().lower() if len(found) == 1 else "both" if "?" not in found else "?"
        ids = feature.num_ids if feature.num_ids is not None else "-"
        rows.append((name, kind, ", ".join(feature.inputs), side, ids, ", ".join(groups.get(name, ["(history)"]))))
    yield "Features", ("feature", "type", "columns", "side", "ids", "groups"), rows
    yield (
        "Embedding tables",
        ("table", "rows", "width", "MB", "owners"),
        [
            (table.name, table.rows, table.dim, round(table.bytes / 1e6, 2), ", ".join(table.owners))
            for table in recommender.collection.tables.values()
        ],
    )
    yield (
        "Groups",
        ("group", "width", "features"),
        [(layout.name, layout.width, len(layout.slots)) for layout in recommender.layouts.values() if layout.slots],
    )
    in_tables, in_layers = recommender.parameter_counts()
    state = len(recommender.row_slots)
    yield (
        "Parameters",
        ("what", "value"),
        [
            ("in tables", f"{in_tables:,}"),
            ("in dense layers", f"{in_layers:,}"),
            (
                "memory of tables in training",
                f"{4 * in_tables * (1 + state) / 1e6:,.1f} MB with {state} values of state a weight",
            ),
        ],
    )


def _flow(config: pipeline_pb2.EasyRecConfig, recommender: Recommender) -> list[tuple[str, str]]:
    lookups = sum(len(r.features) if isinstance(r, Concat) else 1 for r in recommender.collection.requests)
    kafka = config.kafka_train_input
    end = config.train_config.num_steps or f"{config.data_config.num_epochs} epoch(s)"
    if config.HasField("kafka_train_input") and not config.train_config.num_steps:
        end = "to the end of the topic" if kafka.WhichOneof("end") else "until it is stopped"
    data = f"topic {kafka.topic} at {kafka.server}" if kafka.topic else config.train_input_path
    return [
        (data or "(no training data)", f"{len(recommender.columns)} columns"),
        (f"{len(recommender.feature_columns)} columns", f"{len(recommender.features)} features"),
        (f"{len(recommender.features)} features", f"{lookups} lookups in {len(recommender.collection.tables)} tables"),
        (f"{len(recommender.layouts)} groups", config.model_config.model_class),
        (config.model_config.model_class, ", ".join(recommender.loss_names)),
        (f"batches of {config.data_config.batch_size}", f"steps: {end}"),
    ]


def look_at_data(config: pipeline_pb2.EasyRecConfig, recommender: Recommender, rows: int) -> Iterable[Table] | None:
    """Tables about the first rows of the training data; None where the files are not there.

    Raises:
        ConfigError: the files lack columns that the config names.
        InputError: the files are there and can't be read.
    """
    bad_rows = BadRows.from_config(config.data_config)
    bad_rows.max_share = 1.0  # they are to be shown, however many there are
    try:
        source = open_source(
            config.data_config,
            config.train_input_path,
            columns=recommender.columns,
            shuffle=False,
            batch_size=min(rows, 4096),
            bad_rows=bad_rows,
            required=required_columns(recommender),
        )
    except MissingFilesError:
        return None
    return _data_tables(recommender, source, bad_rows, rows)


def _data_tables(recommender: Recommender, source: WindowedSource, bad_rows: BadRows, rows: int) -> Iterable[Table]:
    peek = source.peek(3)
    yield (
        "First rows",
        tuple(peek.rows[0]) if peek.rows else (),
        [tuple(_short(cell) for cell in row.values()) for row in peek.rows],
    )
    seen = 0
    values = dict.fromkeys(recommender.features, 0)
    missing = dict.fromkeys(recommender.features, 0)
    unknown = dict.fromkeys(recommender.features, 0)
    first: dict[str, Any] = {}
    constant = dict.fromkeys(source.columns, True)
    with input_errors(source):
        for columns, _ in as_dataset(source):
            for name, column in columns.items():
                flat = (column.flat_values if isinstance(column, tf.RaggedTensor) else column).numpy()
                if len(flat):
                    constant[name] &= bool(np.all(flat == first.setdefault(name, flat[0])))
            for name, feature in recommender.features.items():
                encoded = feature.encode(columns)
                flat = _flat(encoded.ids if isinstance(encoded, Ids) else encoded.values)
                values[name] += len(flat)
                missing[name] += int((flat < 0).sum()) if isinstance(encoded, Ids) else 0
                unknown[name] += int(feature.count_unknown(columns))
            seen += int(next(iter(columns.values())).shape[0])
            if seen >= rows:
                break
    yield (
        f"Features in the first {seen:,} rows",
        ("feature", "values", "missing", "unknown or out of range"),
        [
            (name, values[name], _share(missing[name], values[name]), _share(unknown[name], values[name]))
            for name in recommender.features
        ],
    )
    findings = [("rows that could not be read", f"{bad_rows.tally.bad} of {bad_rows.tally.rows}")]
    findings += [("unreadable", line) for line in peek.bad[:5]]
    findings += [("constant column", name) for name, is_constant in constant.items() if is_constant and name in first]
    yield "Findings", ("what", "where"), findings


def _flat(values: tf.Tensor | tf.RaggedTensor) -> np.ndarray:
    return (values.flat_values if isinstance(values, tf.RaggedTensor) else values).numpy()


def _share(count: int, total: int) -> str:
    return f"{count} ({100 * count / total:.1f} %)" if total and count else "0"


def _short(cell: Any) -> str:
    if isinstance(cell, float) and float(np.float32(cell)) == cell:
        cell = np.float32(cell)  # as the file has it: 0.2241, not 0.2240999937057495
    text = "" if cell is None else str(cell)
    return text if len(text) <= 20 else f"{text[:17]}..."
