"""The rows of a config: which source reads them, with which columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from easyrec_lite.config import WARNING, ConfigError, Problem
from easyrec_lite.inputs import BadRows, Decoder, Source, build_decoder, open_kafka, open_source
from easyrec_lite.inputs.kafka import Settings
from easyrec_lite.models import Recommender
from easyrec_lite.protos import data_pb2, pipeline_pb2

BAD_ROWS_FILE = "bad_rows.jsonl"
LEDGER_DIR = "ledger"

_EVAL_BATCH = 4096


def check(config: pipeline_pb2.EasyRecConfig) -> Iterator[Problem]:
    """What is wrong with the Kafka inputs: a check for `load_config`."""
    for path in ("kafka_train_input", "kafka_eval_input"):
        if config.HasField(path):
            try:
                Settings.from_config(getattr(config, path), path)
            except ConfigError as error:
                yield from error.problems
    if config.HasField("kafka_train_input"):
        data = config.data_config
        for name in ("shuffle", "drop_remainder"):
            if data.HasField(name) and getattr(data, name):
                expected = "nothing: the rows of a topic are trained on in their order, all of them"
                yield Problem(f"data_config.{name}", "true, with kafka_train_input", expected, severity=WARNING)


def training_source(config: pipeline_pb2.EasyRecConfig, recommender: Recommender, model_dir: Path) -> Source:
    """The training rows, with the columns that training reads.

    Args:
        config: checked and complete.
        recommender: says which columns are read.
        model_dir: the bad rows go there, and the ledger of a stream.

    Raises:
        ConfigError: columns or settings do not fit.
        InputError: the files or the brokers are not there.
    """
    data = config.data_config
    columns = list(dict.fromkeys([*recommender.columns, *_event_time_columns(data)]))
    bad_rows = BadRows.from_config(data, model_dir / BAD_ROWS_FILE)
    if config.HasField("kafka_train_input"):
        server = config.kafka_train_input
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
        config.train_input_path,
        columns=columns,
        seed=config.train_config.seed,
        epochs=data.num_epochs or None,
        drop_remainder=data.drop_remainder,
        bad_rows=bad_rows,
    )


def evaluation_source(config: pipeline_pb2.EasyRecConfig, recommender: Recommender) -> Source:
    """The evaluation rows, once, in the order of the files; of a topic, those up to its end.

    Raises:
        ConfigError: columns or settings do not fit.
        InputError: the files or the brokers are not there.
    """
    data = config.data_config
    if config.HasField("kafka_eval_input"):
        server = data_pb2.KafkaServer()
        server.CopyFrom(config.kafka_eval_input)
        if server.WhichOneof("end") is None:
            server.end_at_start = True
        decoder = _decoder(server, recommender, recommender.columns)
        batch_size = _evaluation_batch_size(config)
        return open_kafka(server, data, decoder, batch_size=batch_size, path="kafka_eval_input")
    return open_source(
        data,
        config.eval_input_path,
        columns=recommender.columns,
        batch_size=_evaluation_batch_size(config),
        shuffle=False,
        seed=0,
        epochs=1,
    )


def can_evaluate(config: pipeline_pb2.EasyRecConfig) -> bool:
    """Whether the config names rows to evaluate on."""
    return bool(config.eval_input_path) or config.HasField("kafka_eval_input")


def describe_columns(source: Source) -> dict[str, dict[str, object]]:
    """How each column is read, for exports: type, whether it holds lists, default."""
    return {
        name: {"type": spec.type_name, "list": spec.ragged, "default": spec.default}
        for name, spec in source.columns.items()
    }


def _decoder(server: data_pb2.KafkaServer, recommender: Recommender, columns: list[str]) -> Decoder:
    """A stream can't be mended and read again, so one row must not end it: what no loss can take is unusable."""
    data = recommender.config.data_config
    # A default in their place would be trained on as if it had been seen.
    required = [*recommender.labels.columns, *_event_time_columns(data)]
    limits = dict.fromkeys(recommender.binary_labels, (0.0, 1.0))
    return build_decoder(data, server.value_format, columns, required, limits)


def _event_time_columns(data: data_pb2.DatasetConfig) -> list[str]:
    return [data.event_time_field] if data.event_time_field else []


def _evaluation_batch_size(config: pipeline_pb2.EasyRecConfig) -> int:
    """Recall in the batch depends on its size, so there it is the training's; elsewhere larger is faster."""
    ranks = any(metric.HasField("recall_at_topk") for metric in config.eval_config.metrics_set)
    return config.data_config.batch_size if ranks else max(config.data_config.batch_size, _EVAL_BATCH)
