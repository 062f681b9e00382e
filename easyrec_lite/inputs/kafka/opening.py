"""Opens a topic as a config describes it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from easyrec_lite.config import ConfigError, Problem
from easyrec_lite.inputs.bad_rows import BadRows
from easyrec_lite.inputs.kafka.client import Library
from easyrec_lite.inputs.kafka.ledger import Ledger
from easyrec_lite.inputs.kafka.settings import Settings
from easyrec_lite.inputs.kafka.source import KafkaSource
from easyrec_lite.inputs.schema import Kind
from easyrec_lite.protos import data_pb2

if TYPE_CHECKING:
    from easyrec_lite.inputs.messages import Decoder


def open_kafka(
    server: data_pb2.KafkaServer,
    data_config: data_pb2.DatasetConfig,
    decoder: Decoder,
    *,
    batch_size: int,
    ledger: str | os.PathLike[str] | None = None,
    bad_rows: BadRows | None = None,
    path: str = "kafka_train_input",
) -> KafkaSource:
    """Opens a topic; brokers are first asked when it is read.

    Args:
        server: The topic and how to read it.
        data_config: For event_time_field, and the defaults of `bad_rows`.
        decoder: What reads the messages.
        batch_size: Rows a batch.
        ledger: The folder of the ledger of a run without an end, below model_dir; None keeps none, and then a restart
            makes other batches of the same rows.
        bad_rows: Where unusable rows go; None only counts and logs them, within data_config.max_bad_row_share.
        path: The path of `server` in the config.

    Raises:
        ConfigError: All that is wrong with the config; or confluent-kafka is wanted and isn't installed.
    """
    problems: list[Problem] = []
    event_time = data_config.event_time_field or None
    try:
        settings = Settings.from_config(server, path)
    except ConfigError as error:
        problems += error.problems
    if event_time is not None:
        spec = decoder.specs.get(event_time)
        if spec is None or spec.kind is Kind.TEXT or spec.ragged:
            found = "a column that isn't read" if spec is None else f"the {spec.type_name} column {event_time!r}"
            problems.append(Problem("data_config.event_time_field", found, "a column of whole seconds since 1970"))
    if problems:
        raise ConfigError(problems)
    return KafkaSource(
        settings,
        decoder,
        batch_size=batch_size,
        library=library(settings),
        ledger=Ledger(ledger) if ledger is not None and settings.end is None else None,
        bad_rows=bad_rows if bad_rows is not None else BadRows.from_config(data_config),
        event_time=event_time,
    )


def library(settings: Settings) -> Library:
    """The client library that the settings name; it is imported only then."""
    if settings.client == data_pb2.KafkaServer.CONFLUENT:
        from easyrec_lite.inputs.kafka.confluent import Confluent

        return Confluent(settings.path)
    from easyrec_lite.inputs.kafka.kafka_python import KafkaPython

    return KafkaPython()
