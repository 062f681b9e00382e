"""Whole trainings on topics of a real broker."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from kafka import KafkaConsumer, TopicPartition
from stream_runs import COLUMNS, config, write_rows

from easyrec_lite import _runs, _training
from easyrec_lite.checkpoints import latest
from tools.kafka_broker import Cluster
from tools.kafka_replay import replay

ROWS, DAMAGED = 100_000, 1_000


@pytest.mark.slow
@pytest.mark.broker
def test_damaged_messages_are_kept_aside_and_all_others_trained(
    kafka: Cluster, make_topic: Callable[..., str], tmp_path: Path
) -> None:
    write_rows(tmp_path / "rows.parquet", ROWS)
    topic, letters = make_topic(4), make_topic(1)
    sent = replay(
        kafka.bootstrap, topic, str(tmp_path / "rows.parquet"), columns=COLUMNS, label="click",
        event_time_field="at", malformed=DAMAGED / ROWS,
    )  # fmt: skip
    kinds = {(f"{topic}/{one.partition}", one.offset): one.kind for one in sent.damaged}
    assert len(kinds) == DAMAGED
    assert len(set(kinds.values())) == 15
    edits = [f"kafka_train_input.dead_letter_topic={letters}", "data_config.batch_size=1024"]
    _training.train(config(kafka.bootstrap, topic, tmp_path / "m", *edits, bounded=True))

    assert latest(tmp_path / "m").state["rows"] == ROWS
    records = [json.loads(line) for line in (tmp_path / "m" / "bad_rows.jsonl").read_text().splitlines()]
    assert {(record["file"], record["line"]) for record in records} == set(kinds)
    assert all(record["reason"] for record in records)
    statistics = json.loads((tmp_path / "m" / "statistics.json").read_text())
    assert statistics["rows"] == ROWS
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap)
    consumer.assign([TopicPartition(letters, 0)])
    consumer.seek_to_beginning()
    end = consumer.end_offsets([TopicPartition(letters, 0)])[TopicPartition(letters, 0)]
    received = []
    while consumer.position(TopicPartition(letters, 0)) < end:
        for messages in consumer.poll(timeout_ms=1000).values():
            received += messages
    consumer.close()
    heads = [dict(message.headers) for message in received]
    places = Counter((f"{head['topic'].decode()}/{head['partition'].decode()}", int(head["offset"])) for head in heads)
    assert places == Counter(list(kinds))
    assert all(head["reason"] for head in heads)


@pytest.mark.broker
def test_evaluation_on_a_topic_is_that_of_its_rows_in_a_file(
    kafka: Cluster, make_topic: Callable[..., str], tmp_path: Path
) -> None:
    write_rows(tmp_path / "rows.parquet", 3000)
    topic = make_topic(2)
    replay(
        kafka.bootstrap, topic, str(tmp_path / "rows.parquet"), columns=COLUMNS, label="click",
        event_time_field="at", rows_per_message=3,
    )  # fmt: skip
    model = tmp_path / "m"
    on_topic = [f"kafka_eval_input.{field}" for field in (f"server={kafka.bootstrap}", f"topic={topic}", "group=e")]
    trained = _training.train(config(kafka.bootstrap, topic, model, *on_topic, bounded=True))
    assert trained.metrics["rows"] == 3000
    _, again = _runs.evaluate(config(kafka.bootstrap, topic, model, *on_topic))
    on_file = [f"eval_input_path={tmp_path / 'rows.parquet'}"]
    _, expected = _runs.evaluate(config(kafka.bootstrap, topic, model, *on_file))
    assert trained.metrics == pytest.approx(expected, rel=1e-5)
    assert again == pytest.approx(expected, rel=1e-5)
