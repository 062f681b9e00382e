"""What the source promises, over a topic in memory: any polling, any kill."""

from __future__ import annotations

import json
import math
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka_streams import (
    Log,
    MemoryLibrary,
    full,
    ids,
    make_settings,
    make_source,
    read_rows,
    reading,
    show,
)

from easyrec_lite.inputs import BadRows, InputError, RawBatch, as_dataset, input_errors
from easyrec_lite.inputs.kafka import drafts, feed
from easyrec_lite.inputs.kafka.ledger import Disk, Ledger
from easyrec_lite.inputs.kafka.position import Place, StreamPosition
from easyrec_lite.inputs.kafka.settings import Where


@pytest.fixture(autouse=True, scope="module")
def impatience() -> Iterator[None]:
    """Closing a source waits for a poll."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feed, "_POLL_SECONDS", 0.002)
        patch.setattr(drafts, "_IDLE_SECONDS", 0.1)
        yield


def make_log(messages: int = 20, partitions: int = 2, per_message: int = 1) -> Log:
    """Messages in turn, rows counted through."""
    log, row = Log(partitions), 0
    for message in range(messages):
        rows = range(row, row + per_message)
        log.send(message % partitions, b"\n".join(b"%d" % one for one in rows), time=1000 * message)
        row += per_message
    return log


polls = st.lists(st.integers(1, 9), min_size=1, max_size=6)
turns = st.lists(st.integers(0, 3), min_size=1, max_size=6)
message = st.one_of(
    st.none(),
    st.lists(st.sampled_from(["good", "good", "good", "bad"]), max_size=5),
)


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """Topics with gaps, bad rows, bad messages, empty messages, times that go back, silent partitions."""
    log, row = Log(draw(st.integers(1, 4))), 0
    for _ in range(draw(st.integers(0, 25))):
        value = draw(message)
        lines = []
        for kind in value or ():
            lines.append(b"%d" % row if kind == "good" else b"x%d" % row)
            row += 1
        log.send(
            draw(st.integers(0, len(log.messages) - 1)),
            None if value is None else b"\n".join(lines),
            time=draw(st.integers(-1, 12)) * 1000,
            gap=draw(st.sampled_from([0, 0, 0, 2])),
        )
    return log


# Live.


def test_batches_as_rows_arrive_of_all_partitions_in_turn(tmp_path: Path) -> None:
    log = make_log(12, partitions=3)
    source = make_source(MemoryLibrary(log, [100]), batch_size=6, ledger=Ledger(tmp_path))
    batches = read_rows(source, 12)
    assert [ids(batch) for batch in batches] == [[0, 3, 1, 4, 2, 5], [6, 9, 7, 10, 8, 11]]
    assert batches[0].position.to_json() == (
        '{"cluster":"cluster-1","topic":"clicks","topic_id":"id-1","batch":1,'
        '"partitions":{"0":[2,0],"1":[2,0],"2":[2,0]},"tally":[6,0,0],"lost":0,"time":5.0}'
    )
    assert [batch.event_time for batch in batches] == [5.0, 11.0]
    assert source.lag() == {0: 0, 1: 0, 2: 0}
    assert source.num_rows is None


def test_a_batch_may_end_in_the_middle_of_a_message(tmp_path: Path) -> None:
    log = make_log(2, partitions=1, per_message=5)
    batches = read_rows(make_source(MemoryLibrary(log), batch_size=3, ledger=Ledger(tmp_path)), 10)
    assert [ids(batch) for batch in batches] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert [json.loads(b.position.to_json())["partitions"]["0"] for b in batches] == [[0, 3], [1, 1], [1, 4], [2, 0]]


def test_a_batch_that_is_not_full_waits_for_rows_and_then_goes_out() -> None:
    log = make_log(3, partitions=1)
    with reading(make_source(MemoryLibrary(log), make_settings(max_wait=3600.0), batch_size=4)) as batches:
        sender = threading.Timer(0.05, log.send, (0, b"7"))
        sender.start()
        assert ids(next(batches)) == [0, 1, 2, 7]
        sender.join()
    with reading(make_source(MemoryLibrary(log), make_settings(max_wait=0.01), batch_size=9)) as batches:
        assert ids(next(batches)) == [0, 1, 2, 7]


def test_an_idle_stream_says_so_and_moves_over_gaps(tmp_path: Path) -> None:
    log = make_log(2, partitions=1)
    source = make_source(MemoryLibrary(log, [9]), batch_size=2, ledger=Ledger(tmp_path))
    with reading(source) as batches:
        assert ids(next(batches)) == [0, 1]
        log.change(end={0: 10})
        positions = []
        while not positions or positions[-1].partitions != {0: Place(10)}:
            batch = next(batches)
            positions.append(batch.position)
            assert (batch.rows, ids(batch)) == (0, [])
            assert math.isnan(batch.event_time)
        assert positions[-1].batch == 1
        log.send(0, b"5")
        assert ids(next(full(batches))) == [5]
    (again,) = read_rows(make_source(MemoryLibrary(log), ledger=Ledger(tmp_path)), 1, positions[-1])
    assert ids(again) == [5]


@settings(max_examples=40, deadline=None)
@given(logs(), st.lists(st.tuples(polls, turns, st.integers(0, 12)), min_size=1, max_size=4), st.integers(1, 7))
def test_whatever_the_polling_and_wherever_it_was_killed_all_rows_come_once(
    log: Log, lives: list[tuple[list[int], list[int], int]], batch_size: int
) -> None:
    """Every life resumes from a batch of the one before, or from the beginning, and meets the same batches again."""
    with tempfile.TemporaryDirectory() as folder:
        bad = Path(folder, "bad.jsonl")
        known: dict[int, Any] = {}
        start: StreamPosition | None = None
        total = len(log.rows())
        for number, (amounts, order, stop) in enumerate([*lives, ([5], [0], 10**9)]):
            source = make_source(
                MemoryLibrary(log, amounts, order),
                batch_size=batch_size,
                ledger=Ledger(Path(folder, "ledger"), batches_per_file=3),
                bad_rows=BadRows(bad, max_share=1.0),
            )
            rows = sum(len(known[n][0]) for n in range(start.batch)) if start else 0
            with reading(source, start) as batches:
                while rows < total and stop >= 0:
                    batch = next(batches)
                    stop, rows = stop - 1, rows + batch.rows
                    if (this := batch.position.batch - 1) in known and batch.rows:  # type: ignore[attr-defined]
                        assert show(batch) == known[this], f"life {number}"
                    elif batch.rows or this not in known:
                        known[max(this, 0)] = show(batch)
                    if stop % 3 == 0 and batch.rows:
                        start = batch.position  # type: ignore[assignment]
        assert sorted(row for shown in known.values() for row in shown[0]) == log.rows()
        if total:
            tally = json.loads(known[max(known)][3])["tally"]
            assert len(bad.read_text().splitlines() if bad.exists() else []) >= tally[1] == tally[2]


class CrashError(Exception):
    pass


class FailingDisk(Disk):
    """Dies at an operation, which is done by half or not at all."""

    def __init__(self, left: int, share: float) -> None:
        self._left, self._share = left, share

    def _dies(self) -> bool:
        self._left -= 1
        return self._left < 0

    def create(self, path: Path, data: bytes) -> None:
        if self._dies():
            path.with_name(f".{path.name}.tmp").write_bytes(data[: int(len(data) * self._share)])
            raise CrashError
        super().create(path, data)

    def append(self, path: Path, data: bytes) -> None:
        if self._dies():
            super().append(path, data[: int(len(data) * self._share)])
            raise CrashError
        super().append(path, data)

    def truncate(self, path: Path, size: int) -> None:
        if self._dies():
            raise CrashError
        super().truncate(path, size)

    def remove(self, path: Path) -> None:
        if self._dies():
            raise CrashError
        super().remove(path)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 0.999), polls), max_size=5), st.integers(1, 5))
def test_a_crash_in_any_write_of_the_ledger_loses_and_doubles_nothing(
    crashes: list[tuple[int, float, list[int]]], batch_size: int
) -> None:
    log = make_log(15, per_message=2)
    with tempfile.TemporaryDirectory() as folder:
        trained: list[list[int]] = []
        start: StreamPosition | None = None
        for left, share, amounts in [*crashes, (10**9, 0.0, [4])]:
            ledger = Ledger(folder, FailingDisk(left, share), batches_per_file=2)
            try:
                source = make_source(MemoryLibrary(log, amounts), batch_size=batch_size, ledger=ledger)
                for batch in read_rows(source, 30 - sum(map(len, trained)), start):
                    assert batch.position.batch == len(trained) + 1  # type: ignore[attr-defined]
                    trained.append(ids(batch))
                    start = batch.position  # type: ignore[assignment]
                    source.forget_before(batch.position)
            except CrashError:
                pass
        assert sorted(row for batch in trained for row in batch) == list(range(30))


def test_the_ledger_is_written_before_a_batch_is_seen(tmp_path: Path) -> None:
    log = make_log(8)
    with reading(make_source(MemoryLibrary(log, [100]), ledger=Ledger(tmp_path))) as batches:
        first, second = next(batches), next(batches)
    with reading(make_source(MemoryLibrary(log, [1]), ledger=Ledger(tmp_path))) as batches:
        assert [show(next(batches)), show(next(batches))] == [show(first), show(second)]


def test_without_a_position_a_run_begins_where_its_ledger_does(tmp_path: Path) -> None:
    log = make_log(4)
    latest = make_settings(start=Where("latest"))
    with reading(make_source(MemoryLibrary(log), latest, ledger=Ledger(tmp_path))) as batches:
        assert next(batches).rows == 0
    log.send(0, b"7")
    (batch,) = read_rows(make_source(MemoryLibrary(log), latest, ledger=Ledger(tmp_path)), 1)
    assert ids(batch) == [7]


def test_a_ledger_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    log = make_log(12)
    batches = read_rows(
        make_source(MemoryLibrary(log, [100]), batch_size=2, ledger=Ledger(tmp_path, batches_per_file=2)), 12
    )
    ledger = Ledger(tmp_path)
    ledger.forget_before(5)
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["000000000004"]
    source = make_source(MemoryLibrary(log), batch_size=2, ledger=ledger)
    with pytest.raises(InputError, match="begins at batch 4, and no position to start from"):
        source.read()
    with pytest.raises(InputError, match="a ledger of the batches 4 to 5; expected one that reaches batch 2"):
        source.read(batches[1].position)
    assert source.read(batches[4].position)


# What goes wrong with a topic.


def test_a_topic_made_anew_is_refused_at_the_start_and_while_running() -> None:
    log = make_log()
    with reading(make_source(MemoryLibrary(log), refresh=0.0)) as batches:
        position = next(batches).position
        log.change(id="id-2")
        with pytest.raises(InputError, match=r"a topic made anew \(id id-2\)"):
            for _ in batches:
                pass
    with pytest.raises(InputError, match="a topic made anew"):
        make_source(MemoryLibrary(log)).read(position.to_json())
    log.change(cluster="cluster-2")
    with pytest.raises(InputError, match="cluster 'cluster-2'"):
        make_source(MemoryLibrary(log)).read(position)


@pytest.mark.parametrize(("id_", "reason"), [("id-1", "a log that lost messages"), ("id-2", "a topic made anew")])
def test_a_log_that_was_cut_may_be_another_topic(id_: str, reason: str) -> None:
    """A client may notice first that the log ends too early, and later that the topic has another id."""
    log = make_log()
    with reading(make_source(MemoryLibrary(log))) as batches:
        next(batches)
        log.change(id=id_, cut=True)
        with pytest.raises(InputError, match=reason):
            for _ in batches:
                pass


def test_a_topic_that_is_not_there() -> None:
    log = make_log()
    with reading(make_source(MemoryLibrary(log), refresh=0.0)) as batches:
        next(batches)
        log.change(id="")
        with pytest.raises(InputError, match="no such topic"):
            for _ in batches:
                pass
    with pytest.raises(InputError, match="no such topic"):
        make_source(MemoryLibrary(log), refresh=0.3).read()


def test_a_broker_that_has_just_started_does_not_know_its_topics_yet() -> None:
    log = make_log()
    log.starting = 2
    with reading(make_source(MemoryLibrary(log))) as batches:
        assert next(batches).rows
    assert not log.starting


@pytest.mark.parametrize("bounded", [False, True])
def test_messages_that_are_gone_are_an_error_or_count_as_lost(bounded: bool, tmp_path: Path) -> None:
    log = make_log(20)
    end = Where("latest") if bounded else None
    with reading(make_source(MemoryLibrary(log), make_settings(end=end))) as batches:
        position = next(batches).position
    log.delete(0, before=6)
    with (
        reading(make_source(MemoryLibrary(log), make_settings(end=end)), position) as batches,
        pytest.raises(InputError, match=r"partition 0: found the first message at offset 6, of 1970-01-01 00:00:12"),
    ):
        list(batches)
    options = make_settings(end=end, skip_lost=True)
    source = make_source(MemoryLibrary(log), options, ledger=None if bounded else Ledger(tmp_path))
    places = position.partitions  # type: ignore[attr-defined]
    left = sorted([*range(12, 20, 2), *range(2 * places[1].offset + 1, 20, 2)])
    rest = read_rows(source, len(left), position)
    assert sorted(row for batch in rest for row in ids(batch)) == left
    assert rest[-1].position.lost == 6 - places[0].offset  # type: ignore[attr-defined]
    if not bounded:
        again = read_rows(make_source(MemoryLibrary(log), options, ledger=Ledger(tmp_path)), len(left), position)
        assert [show(batch) for batch in again] == [show(batch) for batch in rest]


def test_offsets_beyond_the_end_are_an_error_even_where_losses_are_not() -> None:
    log = make_log(4)
    position = read_rows(make_source(MemoryLibrary(log)), 4)[-1].position
    log.change(end={0: 1, 1: 2})
    source = make_source(MemoryLibrary(log), make_settings(skip_lost=True))
    with reading(source, position) as batches, pytest.raises(InputError, match="partition 0 ending at offset 1"):
        next(full(batches))


def test_new_partitions_are_read_from_their_start(tmp_path: Path) -> None:
    log = make_log(4)
    with reading(make_source(MemoryLibrary(log, [9]), refresh=0.0, ledger=Ledger(tmp_path))) as batches:
        position = next(batches).position
        assert position.partitions == {0: (2, 0), 1: (2, 0)}  # type: ignore[attr-defined]
        log.grow()
        log.send(2, b"100")
        new = next(full(batches))
        assert ids(new) == [100]
    (again,) = read_rows(make_source(MemoryLibrary(log), ledger=Ledger(tmp_path)), 1, position)
    assert show(again) == show(new)


def test_workers_share_the_partitions() -> None:
    log = make_log(20, partitions=4)
    found = []
    for worker in (0, 1):
        batches = read_rows(make_source(MemoryLibrary(log), make_settings(workers=2, worker=worker)), 10)
        found += [row for batch in batches for row in ids(batch)]
    assert sorted(found) == list(range(20))
    with pytest.raises(InputError, match="worker 0 of 2 in the config; expected worker 1 of 2"):
        make_source(MemoryLibrary(log), make_settings(workers=2, worker=0)).read(batches[0].position)


def test_a_failure_to_read_ahead_comes_after_what_was_read() -> None:
    log = make_log(4)
    log.messages[1][1] = (1, 0, b"1\n\xff")  # not for LineDecoder: it raises UnicodeDecodeError
    with reading(make_source(MemoryLibrary(log, [1]), batch_size=1)) as batches:
        assert ids(next(full(batches))) == [0]
        with pytest.raises(UnicodeDecodeError):
            for _ in batches:
                pass


def test_bad_rows_are_kept_and_sent_on_and_too_many_are_an_error(tmp_path: Path) -> None:
    log = Log(1)
    for value in (b"1\nx\n2", None, b"3"):
        log.send(0, value)
    path = tmp_path / "bad.jsonl"
    options = make_settings(dead_letter_topic="letters")
    read_rows(make_source(MemoryLibrary(log), options, bad_rows=BadRows(path, max_share=1.0)), 3)
    first, second = map(json.loads, path.read_text().splitlines())
    assert first == {
        "file": "clicks/0", "line": 0, "row": 1, "reason": "is not a whole number", "column": "id", "value": "x",
        "cells": {"id": "x"},
    }  # fmt: skip
    assert second == {"file": "clicks/0", "line": 1, "reason": "no value"}
    assert log.letters == [
        (
            "letters",
            b"1\nx\n2",
            {
                "reason": "column 'id' is not a whole number",
                "topic": "clicks",
                "partition": "0",
                "offset": "0",
                "row": "1",
            },
        ),
        ("letters", None, {"reason": "no value", "topic": "clicks", "partition": "0", "offset": "1"}),
    ]
    strict = make_source(MemoryLibrary(log), bad_rows=BadRows(max_share=0.3, min_rows=1))
    with reading(strict) as batches, pytest.raises(InputError, match="2 unusable rows among 5"):
        for _ in batches:
            pass


# Bounded.


def reference(log: Log) -> list[int]:
    """The rows by the definition: head by head."""
    heads = {number: list(messages) for number, messages in log.messages.items()}
    rows = []
    while any(heads.values()):
        number = min((messages[0][1], number) for number, messages in heads.items() if messages)[1]
        value = heads[number].pop(0)[2]
        rows += [int(line) for line in (value or b"").split(b"\n") if line.isdigit()]
    return rows


def told(batches: Iterator[RawBatch]) -> list[RawBatch]:
    """All but those that only say that nothing came for a second, as it may be on a busy machine."""
    return [batch for batch in batches if batch.rows or batch.position.at_its_end]  # type: ignore[attr-defined]


@settings(max_examples=100, deadline=None)
@given(logs(), st.lists(st.tuples(polls, turns, st.integers(1, 60)), min_size=2, max_size=2), st.data())
def test_a_bounded_run_depends_on_the_topic_alone(
    log: Log, ways: list[tuple[list[int], list[int], int]], data: st.DataObject
) -> None:
    batch_size = data.draw(st.integers(1, 7))
    runs = []
    for amounts, order, max_rows in ways:
        source = make_source(
            MemoryLibrary(log, amounts, order),
            make_settings(end=Where("latest")),
            batch_size=batch_size,
            max_rows=max_rows,
        )
        runs.append([show(batch) for batch in told(source.read())])
    assert runs[0] == runs[1]
    assert [row for batch in runs[0] for row in batch[0]] == reference(log)
    assert all(len(batch[0]) == batch_size for batch in runs[0][:-1])
    assert not runs[0] or StreamPosition.from_json(runs[0][-1][3]).at_its_end
    if len(runs[0]) > 1:
        stop = data.draw(st.integers(0, len(runs[0]) - 2))
        source = make_source(
            MemoryLibrary(log, *ways[1][:2]), make_settings(end=Where("latest")), batch_size=batch_size
        )
        log.send(0, b"999")  # comes after the end, which was fixed at the first start
        rest = told(source.read(runs[0][stop][3]))
        if stop < len(runs[0]) - 1:
            assert [show(batch) for batch in rest] == runs[0][stop + 1 :]
        else:  # the run had come to its end: it goes on with what has come since
            assert [ids(batch) for batch in rest] == [[999]]


def test_a_bounded_run_that_waits_for_messages_says_that_nothing_came() -> None:
    log = make_log(4)
    source = make_source(MemoryLibrary(log), make_settings(end=Where("offsets", offsets={0: 3, 1: 2})))
    with reading(source) as batches:
        assert next(batches).rows == 0
        log.send(0, b"7", time=9000)
        assert [ids(batch) for batch in full(batches)] == [[0, 1, 2, 3], [7]]


def test_starts_and_ends() -> None:
    log = make_log(20)

    def rows(**options: Any) -> list[int]:
        source = make_source(MemoryLibrary(log, [5]), make_settings(**{"end": Where("latest")} | options))
        return [row for batch in source.read() for row in ids(batch)]

    assert rows(start=Where("offsets", offsets={1: 8})) == [*range(0, 16, 2), 16, 17, 18, 19]
    assert rows(start=Where("time", 15_500)) == [16, 17, 18, 19]
    assert rows(start=Where("time", 18_500)) == [19]
    assert rows(start=Where("latest")) == []
    assert rows(end=Where("time", 2_500)) == [0, 1, 2]
    assert rows(end=Where("offsets", offsets={0: 1, 1: 2})) == [0, 1, 3]
    with pytest.raises(InputError, match=r"end_offset_info: found no end of partition 1"):
        rows(end=Where("offsets", offsets={0: 1}))
    with pytest.raises(InputError, match=r"offset_info: found partition 7"):
        rows(start=Where("offsets", offsets={7: 1}))


def test_a_run_that_reached_its_end_goes_on_to_the_end_of_now() -> None:
    log = make_log(4)
    log.change(end={0: 5, 1: 2})  # a gap, as transactions leave one
    options = make_settings(end=Where("latest"))
    *_, last = make_source(MemoryLibrary(log), options).read()
    assert list(make_source(MemoryLibrary(log), options).read(last.position)) == []
    log.grow()
    log.send(0, b"7", time=9)
    log.send(2, b"8", time=8)
    assert [ids(batch) for batch in make_source(MemoryLibrary(log), options).read(last.position)] == [[8, 7]]


def test_an_end_cannot_come_or_go_between_runs() -> None:
    log = make_log()
    position = next(iter(make_source(MemoryLibrary(log), make_settings(end=Where("latest"))).read())).position
    with pytest.raises(InputError, match="a config without an end"):
        make_source(MemoryLibrary(log)).read(position)


# The rest.


@pytest.mark.parametrize("end", [None, Where("offsets", offsets={0: 3, 1: 2})])
def test_closing_ends_whoever_waits_for_rows(end: Where | None) -> None:
    log = make_log(4)
    source = make_source(MemoryLibrary(log), make_settings(end=end))
    begun, batches = threading.Event(), []

    def read() -> None:
        for batch in source.read():
            batches.append(batch)
            begun.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    assert begun.wait(30)  # all that there is was read, or nothing came: it waits for more
    source.close()
    reader.join(30)
    assert not reader.is_alive()
    assert not [thread for thread in threading.enumerate() if thread.name == "kafka-clicks"]


def test_commits_for_lag_tools_and_only_logs_failures(caplog: pytest.LogCaptureFixture) -> None:
    log = make_log(4)
    source = make_source(MemoryLibrary(log))
    position = read_rows(source, 4)[-1].position
    source.commit(position.to_json())
    source._committing.join()  # type: ignore[union-attr]
    assert log.committed == {0: 2, 1: 2}
    log.change(away=True)
    source.commit(position)
    source._committing.join()  # type: ignore[union-attr]
    assert "the offsets weren't committed, which only lag tools miss: away" in caplog.text


def test_a_dataset_carries_empty_batches_and_ends_its_threads() -> None:
    log = make_log(4)
    source = make_source(MemoryLibrary(log, [9]), batch_size=4)
    before = set(threading.enumerate())
    iterator = iter(as_dataset(source, details=True))
    columns, _, _ = next(iterator)
    assert columns["word"].numpy().tolist() == [b"none", b"w2", b"w1", b"none"]
    columns, position, details = next(iterator)
    assert {name: tuple(column.shape) for name, column in columns.items()} == {
        "id": (0,),
        "word": (0,),
        "list": (0, None),
    }
    assert json.loads(position.numpy())["partitions"] == {"0": [2, 0], "1": [2, 0]}
    assert tf.math.is_nan(details.event_time)
    threads = [thread for thread in threading.enumerate() if thread.name == "kafka-clicks"]
    assert threads
    assert before.isdisjoint(threads)
    del iterator, columns, position, details
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def test_a_dataset_raises_what_went_wrong() -> None:
    log = make_log(4)
    source = make_source(MemoryLibrary(log), refresh=0.0)

    def consume() -> None:
        with input_errors(source):
            for _ in as_dataset(source):
                log.change(id="id-2")

    with pytest.raises(InputError, match="a topic made anew"):
        consume()


def test_positions_are_those_of_streams() -> None:
    with pytest.raises(InputError, match="the JSON of a position in a stream"):
        make_source(MemoryLibrary(make_log())).read('{"epoch": 1}')
    position = StreamPosition(
        "c", "t", "i", 3, {10: Place(5, 2), 2: Place(1)}, {2: 9, 10: 9}, lost=4, time=1.5, workers=2, worker=0
    )
    assert StreamPosition.from_json(position.to_json()) == position
    assert '"partitions":{"2":[1,0],"10":[5,2]}' in position.to_json()
