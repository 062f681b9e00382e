"""A Kafka topic as a source of batches."""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from easyrec_lite.inputs.bad_rows import BadRows
from easyrec_lite.inputs.batch import HasJson, RawBatch, join, to_batch
from easyrec_lite.inputs.errors import InputError
from easyrec_lite.inputs.kafka.backlog import Backlog
from easyrec_lite.inputs.kafka.client import Client, Library, Producer, Topic
from easyrec_lite.inputs.kafka.drafts import Draft, live, merged, newest, replayed
from easyrec_lite.inputs.kafka.feed import ClosedError, Feed, missing
from easyrec_lite.inputs.kafka.ledger import Entry, Ledger
from easyrec_lite.inputs.kafka.merge import Merge
from easyrec_lite.inputs.kafka.position import Place, StreamPosition
from easyrec_lite.inputs.kafka.settings import Settings, Where
from easyrec_lite.inputs.kafka.stretch import Bad
from easyrec_lite.inputs.schema import ColumnSpec, Kind
from easyrec_lite.inputs.source import Source

if TYPE_CHECKING:
    from easyrec_lite.inputs.messages import Decoder

_LOG = logging.getLogger(__name__)
_ASK_SECONDS = 30.0
_STARTING_SECONDS, _AGAIN_SECONDS = 5.0, 0.2
_COMMIT_SECONDS = 10.0
_CLOSE_SECONDS = 10.0
_MAX_BYTES = 2**26
_ARROW_TYPES = {Kind.INT: pa.int64(), Kind.FLOAT: pa.float32(), Kind.TEXT: pa.string()}


class KafkaSource(Source):
    """Reads a topic, row by row where messages hold several, and knows the position of every row.

    Without an end, batches are made as messages arrive: of all partitions in turn, full, or what there is when the
    first row of a batch has waited `settings.max_wait`. Which rows those are depends on the moment, so each batch is
    written to the ledger, and synced, before it is yielded; reading from an earlier position first yields the batches
    of the ledger again, row for row, and then goes on live. While nothing comes, a batch of 0 rows is yielded about
    once a second.

    With an end, partitions are merged by (time, partition) of their next messages: the batches depend on the topic
    and the position alone.

    Messages are polled and decoded in a thread, ahead of the batches by a bounded number of rows and bytes; closing
    the iterator ends it. Partitions are assigned, not subscribed: no group can throw a slow reader out.

    Args:
        settings: The topic.
        decoder: What reads the messages.
        batch_size: Rows a batch.
        library: The client library.
        ledger: The ledger of a run without an end.
        bad_rows: Where unusable rows are counted and kept; all of them are, for a stream can't be read again for long.
        event_time: The column with the time of a row in seconds since 1970; None takes the times of the messages.
        refresh: Seconds after which the topic is looked at again.
        max_rows: Rows read ahead; None means 8 batches, and at least 16384.
    """

    def __init__(
        self,
        settings: Settings,
        decoder: Decoder,
        *,
        batch_size: int,
        library: Library,
        ledger: Ledger | None = None,
        bad_rows: BadRows | None = None,
        event_time: str | None = None,
        refresh: float = 30.0,
        max_rows: int | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1. Received: {batch_size}")
        self._settings, self._decoder, self._library, self._ledger = settings, decoder, library, ledger
        self._batch_size, self._event_time, self._refresh = batch_size, event_time, refresh
        self._max_rows = max_rows if max_rows is not None else max(8 * batch_size, 2**14)
        self.bad_rows = bad_rows if bad_rows is not None else BadRows()
        self.bad_rows.keep = sys.maxsize
        self._empty = pa.RecordBatch.from_arrays(
            [_empty(spec) for spec in self.columns.values()], names=list(self.columns)
        )
        self._feed: Feed | None = None
        self._places: Mapping[int, Place] = {}
        self._lost = 0
        self._reading = threading.Lock()  # held while a batch is made
        self._committing: threading.Thread | None = None

    @property
    def columns(self) -> Mapping[str, ColumnSpec]:
        """What is read, by name."""
        return self._decoder.specs

    def read(self, start: HasJson | str | None = None) -> Iterator[RawBatch]:
        """Reads from a position on; see `Source.read`.

        Without a start it is where the ledger begins, if it begins with the run's first batch; else where the config
        says. Connects to check that, and again when the first batch is asked for.

        Raises:
            InputError: No broker answers, the topic isn't there or isn't the one of the position, or the ledger is
                damaged or doesn't fit. Later also: the next messages are gone; too many rows are unusable.
        """
        with contextlib.closing(self._library.connect(self._settings, self._refresh)) as client:
            position = self._start(client, start)
        entries = self._ledger.entries(position) if self._ledger is not None else []
        return self._guarded(self._batches(position, entries))

    def first_position(self) -> StreamPosition:
        """Where `read` starts without a start. Who reads from it finds the same place and end later on.

        Raises:
            InputError: As `read`.
        """
        with contextlib.closing(self._library.connect(self._settings, self._refresh)) as client:
            return self._start(client, None)

    def restart(self, position: HasJson | str, time: float) -> StreamPosition:
        """Goes on elsewhere: at the first message of each partition behind a time; returns that position.

        The ledger begins anew there. Reading from an earlier position takes that back.

        Args:
            position: Where the run stands; its counts are kept.
            time: Seconds since 1970.

        Raises:
            InputError: As `read`.
        """
        before = _position(position)
        with contextlib.closing(self._library.connect(self._settings, self._refresh)) as client:
            topic = self._topic(client)
            before.check(self._fresh(topic), self._settings.bootstrap)
            ours = self._ours(topic)
            offsets = self._resolve(client, Where("time", math.floor(time * 1000) + 1), ours, "start")
            ends = before.ends
            if self._settings.end is not None:
                ends = self._resolve(client, self._settings.end, ours, "end")
                ends = {number: max(end, offsets[number]) for number, end in ends.items()}
        places = {number: Place(offset) for number, offset in offsets.items()}
        after = replace(before, partitions=places, ends=ends, time=None)
        return self._ledger.restart(after) if self._ledger is not None else replace(after, batch=before.batch + 1)

    def close(self) -> None:
        """Ends reading: an iterator that waits for rows, in whatever thread, ends."""
        if self._feed is not None:
            self._feed.close()
            if self._reading.acquire(timeout=_CLOSE_SECONDS):
                self._reading.release()

    def commit(self, position: HasJson | str) -> None:
        """Commits a position to the group, for tools that show the lag; in the background, failures are only logged.

        A call while an earlier one is still at it does nothing.
        """
        places = _position(position).partitions
        if not places or (self._committing is not None and self._committing.is_alive()):
            return
        # Not a daemon: the last commit of a run is finished when the process ends.
        self._committing = threading.Thread(target=self._commit, args=(places,), name="kafka-commit")
        self._committing.start()

    def forget_before(self, position: HasJson | str) -> None:
        """Drops what the ledger holds of the batches before a position, to which nobody goes back any more."""
        if self._ledger is not None:
            self._ledger.forget_before(_position(position).batch)

    @property
    def lost(self) -> int:
        """Messages gone before they could be read, up to the last batch yielded, since the start of the run."""
        return self._lost

    def lag(self) -> dict[int, int]:
        """Messages of each partition behind the last batch yielded, as last heard; no request."""
        high = self._feed.high_watermarks() if self._feed is not None else {}
        places = self._places
        return {number: max(0, end - places.get(number, Place(0)).offset) for number, end in high.items()}

    def _start(self, client: Client, start: HasJson | str | None) -> StreamPosition:
        settings = self._settings
        topic = self._topic(client)
        fresh = self._fresh(topic)
        position = self._ledger.first_position() if start is None and self._ledger is not None else None
        if position is not None and position.batch > 0:
            raise InputError(
                str(self._ledger.folder) if self._ledger is not None else "",
                f"a ledger that begins at batch {position.batch}, and no position to start from",
                "the checkpoint of the run that it belongs to",
                "put the checkpoint back, or delete the folder to start anew",
            )
        if start is not None:
            position = _position(start)
        ours = self._ours(topic)
        if position is not None:
            position.check(fresh, settings.bootstrap)
            if settings.end is None or not position.at_its_end:
                return position
            # What has come since, as an hourly job wants it.
            begun = dict.fromkeys(ours, Place(0)) | dict(position.partitions)
            ends = self._resolve(client, settings.end, ours, "end")
            ends = {number: max(end, begun[number].offset) for number, end in ends.items()}
            return replace(position, partitions=begun, ends=ends)
        places = self._resolve(client, settings.start, ours, "start")
        if settings.end is not None:
            ends = self._resolve(client, settings.end, ours, "end")
            places = {number: min(offset, ends[number]) for number, offset in places.items()}
            fresh = replace(fresh, ends=ends)
        return replace(fresh, partitions={number: Place(offset) for number, offset in places.items()})

    def _topic(self, client: Client) -> Topic:
        end = time.monotonic() + min(_STARTING_SECONDS, self._refresh)
        while True:
            topic = client.describe(_ASK_SECONDS)
            if topic is not None and topic.partitions:
                return topic
            # A broker that has just started may not know its topics yet.
            if time.monotonic() >= end:
                raise missing(self._settings)
            time.sleep(_AGAIN_SECONDS)

    def _fresh(self, topic: Topic) -> StreamPosition:
        """The position of a topic in which nothing was read."""
        settings = self._settings
        return StreamPosition(
            topic.cluster,
            settings.topic,
            topic.id,
            ends=None if settings.end is None else {},
            workers=settings.workers,
            worker=settings.worker,
        )

    def _ours(self, topic: Topic) -> list[int]:
        return sorted(number for number in topic.partitions if self._settings.reads(number))

    def _resolve(self, client: Client, where: Where, partitions: Sequence[int], what: str) -> dict[int, int]:
        if where.kind == "earliest":
            return client.beginnings(partitions, _ASK_SECONDS)
        if where.kind == "latest":
            return client.ends(partitions, _ASK_SECONDS)
        if where.kind == "time":
            found = client.offsets_at(where.time_ms, partitions, _ASK_SECONDS)
            ends = client.ends([number for number in partitions if found[number] is None], _ASK_SECONDS)
            return {n: ends[n] if (offset := found[n]) is None else offset for n in partitions}
        path = f"{self._settings.path}.{'offset_info' if what == 'start' else 'end_offset_info'}"
        if unknown := sorted(n for n in where.offsets if self._settings.reads(n) and n not in partitions):
            raise InputError(path, f"partition {unknown[0]}", f"partitions of topic {self._settings.topic!r}")
        others = [number for number in partitions if number not in where.offsets]
        if others and what == "end":
            raise InputError(path, f"no end of partition {others[0]}", "one for each partition")
        return client.beginnings(others, _ASK_SECONDS) | {n: where.offsets[n] for n in partitions if n in where.offsets}

    def _guarded(self, batches: Iterator[RawBatch]) -> Iterator[RawBatch]:
        """The batches; `close` waits until none is in the making."""
        while True:
            with self._reading:
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def _batches(self, position: StreamPosition, entries: Sequence[Entry]) -> Iterator[RawBatch]:
        self.bad_rows.rewind(position.tally)
        self._places, self._lost = position.partitions, position.lost
        if self._ledger is not None:
            self._ledger.begin(position)
        letters = self._library.producer(self._settings) if self._settings.dead_letter_topic else None
        feed = Feed(
            self._library,
            self._settings,
            self._decoder,
            position,
            refresh=self._refresh,
            max_rows=self._max_rows,
            max_bytes=_MAX_BYTES,
        )
        try:
            with feed, contextlib.suppress(ClosedError):
                self._feed = feed
                for draft in self._drafts(feed, position, entries):
                    batch, position = self._finish(draft, position, letters)
                    self._places, self._lost = position.partitions, position.lost
                    yield batch
                self.bad_rows.check()
        finally:
            if letters is not None:
                letters.close(_COMMIT_SECONDS)

    def _drafts(self, feed: Feed, position: StreamPosition, entries: Sequence[Entry]) -> Iterator[Draft]:
        if position.ends is not None:
            merge = Merge(position.partitions, position.ends)
            yield from merged(feed, merge, self._batch_size, self._max_rows)
            return
        backlog = Backlog(position.partitions)
        yield from replayed(entries, feed, backlog, self._max_rows)
        yield from live(feed, backlog, self._batch_size, self._settings.max_wait)

    def _finish(
        self, draft: Draft, position: StreamPosition, letters: Producer | None
    ) -> tuple[RawBatch, StreamPosition]:
        bad = [one for piece in draft.pieces for one in piece.bad]
        self.bad_rows.add(draft.count, [one.row for one in bad])
        if letters is not None:
            self._send(bad, letters)
        rows = join([piece.rows for piece in draft.pieces if len(piece.rows)] or [self._empty])
        event_time = self._newest(rows, draft)
        after = replace(
            position,
            partitions={**position.partitions, **draft.moved},
            tally=self.bad_rows.tally,
            lost=position.lost + draft.lost,
            time=newest([math.nan if position.time is None else position.time, event_time]),
        )
        if math.isnan(after.time or 0.0):
            after = replace(after, time=None)
        if draft.replayed is not None:
            self._compare(draft, len(rows))
        if draft.count or draft.lost or draft.replayed is not None:
            after = replace(after, batch=position.batch + 1)
            if self._ledger is not None and draft.replayed is None:
                self._ledger.append(Entry(position.batch, draft.segments, len(rows), draft.count - len(rows)), position)
        return to_batch(rows, self.columns, after, event_time), after

    def _newest(self, rows: pa.RecordBatch, draft: Draft) -> float:
        if self._event_time is None:
            return newest([piece.time for piece in draft.pieces])
        time = pc.max(rows.column(self._event_time)).as_py()
        return math.nan if time is None else float(time)

    def _compare(self, draft: Draft, rows: int) -> None:
        assert draft.replayed is not None
        entry = draft.replayed
        if (rows, draft.count - rows) != (entry.rows, entry.bad):
            _LOG.warning(
                "batch %d had %d rows and %d unusable ones when it was first made, and now has %d and %d: "
                "messages are gone, or data_config has changed since",
                entry.batch, entry.rows, entry.bad, rows, draft.count - rows,
            )  # fmt: skip

    def _send(self, bad: Sequence[Bad], letters: Producer) -> None:
        sent: set[tuple[int, int]] = set()
        for one in bad:
            if (one.partition, one.offset) in sent:
                continue
            sent.add((one.partition, one.offset))
            texts = {
                "reason": one.row.reason if one.row.column is None else f"column {one.row.column!r} {one.row.reason}",
                "topic": self._settings.topic,
                "partition": str(one.partition),
                "offset": str(one.offset),
            }
            if one.row.row is not None:
                texts["row"] = str(one.row.row)
            headers = [(name, text.encode()) for name, text in texts.items()]
            key = f"{one.row.file}/{one.offset}".encode()
            letters.send(self._settings.dead_letter_topic, key, one.value, headers)

    def _commit(self, places: Mapping[int, Place]) -> None:
        offsets = {number: place.offset for number, place in places.items()}
        try:
            self._library.commit(self._settings, offsets, _COMMIT_SECONDS)
        except Exception as error:
            _LOG.warning("group %r: the offsets weren't committed, which only lag tools miss: %s",
                         self._settings.group, error)  # fmt: skip


def _position(position: HasJson | str) -> StreamPosition:
    if isinstance(position, StreamPosition):
        return position
    return StreamPosition.from_json(position if isinstance(position, str) else position.to_json())


def _empty(spec: ColumnSpec) -> pa.Array:
    type_ = _ARROW_TYPES[spec.kind]
    return pa.array([], pa.list_(type_) if spec.ragged else type_)
