"""The rows of a config: which source reads them, with which columns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import tensorflow as tf

from easyrec_lite.checkpoints import Checkpoint, find
from easyrec_lite.config import WARNING, ConfigError, Problem
from easyrec_lite.errors import UserError
from easyrec_lite.features import Columns, Profile
from easyrec_lite.inputs import (
    BadRows,
    Decoder,
    Source,
    as_dataset,
    build_decoder,
    input_errors,
    open_kafka,
    open_source,
)
from easyrec_lite.inputs.kafka import Settings
from easyrec_lite.inputs.paths import Paths
from easyrec_lite.models import Recommender
from easyrec_lite.protos import data_pb2, pipeline_pb2

BAD_ROWS_FILE = "bad_rows.jsonl"
LEDGER_DIR = "ledger"
STATISTICS_FILE = "statistics.json"

_EVAL_BATCH = 4096
_SAMPLE_BATCH = 1000


def check(config: pipeline_pb2.EasyRecConfig) -> Iterator[Problem]:
    """What is wrong with the Kafka inputs: a check for `load_config`."""
    for path in ("kafka_train_input", "kafka_eval_input"):
        if config.HasField(path):
            server = getattr(config, path)
            try:
                Settings.from_config(_without_base(server) if path == "kafka_train_input" else server, path)
            except ConfigError as error:
                yield from error.problems
    if config.kafka_train_input.start_after_base and not config.train_config.fine_tune_checkpoint:
        expected, hint = "train_config.fine_tune_checkpoint", "name the base model, or start elsewhere"
        yield Problem("kafka_train_input.start_after_base", "true, and no base model", expected, hint)
    if config.HasField("kafka_train_input"):
        data = config.data_config
        for name in ("shuffle", "drop_remainder"):
            if data.HasField(name) and getattr(data, name):
                expected = "nothing: the rows of a topic are trained on in their order, all of them"
                yield Problem(f"data_config.{name}", "true, with kafka_train_input", expected, severity=WARNING)


def training_source(
    config: pipeline_pb2.EasyRecConfig,
    recommender: Recommender,
    model_dir: Path,
    rows: pd.DataFrame | None = None,
    *,
    fresh: bool = True,
) -> Source:
    """The training rows, with the columns that training reads.

    Args:
        config: checked and complete.
        recommender: says which columns are read.
        model_dir: the bad rows go there, and the ledger of a stream.
        rows: to read in place of what the config names.
        fresh: whether it is read without a position to start from.

    Raises:
        ConfigError: columns or settings do not fit.
        InputError: the files or the brokers are not there.
        UserError: a stream is to start behind the base model's data, and nobody knows where that is.
    """
    data = config.data_config
    columns = list(dict.fromkeys([*recommender.columns, *_event_time_columns(data)]))
    bad_rows = BadRows.from_config(data, model_dir / BAD_ROWS_FILE)
    if config.HasField("kafka_train_input") and rows is None:
        server = _without_base(config.kafka_train_input)
        if fresh and config.kafka_train_input.start_after_base:
            end = data_end(find(config.train_config.fine_tune_checkpoint))
            server.offset_time = f"{math.floor(end * 1000) + 1:013d}"  # milliseconds: the first that is later
        return open_kafka(
            server,
            data,
            _decoder(server, recommender, columns),
            batch_size=data.batch_size,
            ledger=model_dir / LEDGER_DIR,
            bad_rows=bad_rows,
        )
    return open_source(
        data,
        config.train_input_path if rows is None else rows,
        columns=columns,
        seed=config.train_config.seed,
        epochs=data.num_epochs or None,
        drop_remainder=data.drop_remainder,
        bad_rows=bad_rows,
        required=required_columns(recommender),
    )


def evaluation_source(
    config: pipeline_pb2.EasyRecConfig,
    recommender: Recommender,
    rows: Paths | pd.DataFrame | None = None,
    further: Sequence[str] = (),
    types: Mapping[str, str] | None = None,
) -> Source:
    """The evaluation rows, once, in the order of the files; of a topic, those up to its end.

    Args:
        config: checked and complete.
        recommender: says which columns are read.
        rows: to read in place of what the config names.
        further: columns to read beside those of the recommender.
        types: what training read the columns as, by name; what the rows suggest may differ.

    Raises:
        ConfigError: columns or settings do not fit.
        InputError: the files or the brokers are not there.
    """
    data = config.data_config
    columns = list(dict.fromkeys([*recommender.columns, *further]))
    if config.HasField("kafka_eval_input") and rows is None:
        server = data_pb2.KafkaServer()
        server.CopyFrom(config.kafka_eval_input)
        if server.WhichOneof("end") is None:
            server.end_at_start = True
        decoder = _decoder(server, recommender, columns)
        batch_size = _evaluation_batch_size(config)
        return open_kafka(server, data, decoder, batch_size=batch_size, path="kafka_eval_input")
    return open_source(
        data,
        config.eval_input_path if rows is None else rows,
        columns=columns,
        batch_size=_evaluation_batch_size(config),
        shuffle=False,
        seed=0,
        epochs=1,
        required=required_columns(recommender),
        types=types,
    )


def sample_path(config: pipeline_pb2.EasyRecConfig) -> str:
    """The files that `sample_rows` reads: those of the evaluation data, else of the training data; or ''."""
    return config.eval_input_path or config.train_input_path


def sample_rows(
    config: pipeline_pb2.EasyRecConfig,
    recommender: Recommender,
    count: int,
    rows: pd.DataFrame | None = None,
    types: Mapping[str, str] | None = None,
) -> Columns | None:
    """The first `count` rows, as training reads them, for exports; None where there are none.

    Args:
        config: checked and complete.
        recommender: says which columns are read.
        count: at least 1.
        rows: to read in place of the files that the config names.
        types: as of `evaluation_source`.

    Raises:
        ConfigError: columns or settings do not fit.
        InputError: the files are not there, or can't be read.
    """
    given: str | pd.DataFrame = sample_path(config) if rows is None else rows
    if isinstance(given, str) and not given:
        return None
    columns, batch_size = recommender.feature_columns, min(count, _SAMPLE_BATCH)
    source = open_source(
        config.data_config,
        given,
        columns=columns,
        batch_size=batch_size,
        shuffle=False,
        bad_rows=BadRows.from_config(config.data_config),
        types=types,
    )
    batches: list[Any] = []
    try:
        with input_errors(source):
            for batch, _ in as_dataset(source).take(-(-count // batch_size)):
                batches.append(batch)
    finally:
        source.close()
    return (
        {name: tf.concat([batch[name] for batch in batches], axis=0)[:count] for name in columns} if batches else None
    )


def data_end(base: Checkpoint) -> float:
    """The newest event time of the rows that a model was trained on, seconds since 1970.

    Raises:
        UserError: neither the checkpoint nor the statistics beside it know.
    """
    if "event_time" in base.state:
        return float(base.state["event_time"])
    file = base.path.parent.parent / STATISTICS_FILE
    known = Profile.from_json(file.read_text(encoding="utf-8")).last_event if file.exists() else None
    if known is None:
        raise UserError(
            f"{base.path}: found no event time, in it or in {file}; expected that of the newest row it was trained on."
            " Train the base model with data_config.event_time_field, or say where the stream starts by"
            " kafka_train_input.offset_time."
        )
    return known


def can_evaluate(config: pipeline_pb2.EasyRecConfig) -> bool:
    """Whether the config names rows to evaluate on."""
    return bool(config.eval_input_path) or config.HasField("kafka_eval_input")


def describe_columns(source: Source) -> dict[str, dict[str, object]]:
    """How each column is read, for exports and other rows: type, whether it holds lists, default, what is ignored."""
    return {
        name: {"type": spec.type_name, "list": spec.ragged, "default": spec.default, "ignore": spec.ignore}
        for name, spec in source.columns.items()
    }


def required_columns(recommender: Recommender) -> list[str]:
    """Labels, weights and event times: a type's default in their place would be trained on as if it had been seen.

    A `default_val` that the config declares is meant, though, and a label that no task reads is of no account.
    """
    data = recommender.config.data_config
    read = {name for task in recommender.model.tasks for name in (task.label, task.space_label)}
    unread = {name for name in recommender.labels.names if name not in read}
    meant = {field.input_name for field in data.input_fields if field.default_val}
    columns = (*recommender.labels.columns, *_event_time_columns(data))
    return [name for name in columns if name not in meant | unread]


def column_types(columns: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Types by name, from what `describe_columns` said."""
    return {name: str(column["type"]) for name, column in columns.items()}


def trained_types(checkpoint: Checkpoint) -> dict[str, str]:
    """What the training of a checkpoint read its columns as, by name."""
    return column_types(checkpoint.state.get("columns", {}))


def _without_base(server: data_pb2.KafkaServer) -> data_pb2.KafkaServer:
    """A copy, but for `start_after_base`, which a reader of messages knows nothing of."""
    copy = data_pb2.KafkaServer()
    copy.CopyFrom(server)
    copy.ClearField("start_after_base")
    return copy


def _decoder(server: data_pb2.KafkaServer, recommender: Recommender, columns: list[str]) -> Decoder:
    """A stream can't be mended and read again, so one row must not end it: what no loss can take is unusable."""
    data = recommender.config.data_config
    limits = dict.fromkeys(recommender.binary_labels, (0.0, 1.0))
    return build_decoder(data, server.value_format, columns, required_columns(recommender), limits)


def _event_time_columns(data: data_pb2.DatasetConfig) -> list[str]:
    return [data.event_time_field] if data.event_time_field else []


def _evaluation_batch_size(config: pipeline_pb2.EasyRecConfig) -> int:
    """Recall in the batch depends on its size, so there it is the training's; elsewhere larger is faster."""
    ranks = any(metric.HasField("recall_at_topk") for metric in config.eval_config.metrics_set)
    return config.data_config.batch_size if ranks else max(config.data_config.batch_size, _EVAL_BATCH)
