"""The thread that polls and decodes, ahead of those who use the rows."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self

from easyrec_lite.inputs.errors import InputError
from easyrec_lite.inputs.kafka.backlog import Lost
from easyrec_lite.inputs.kafka.client import Client, Fetched, Library, OutOfRangeError, Topic, UnreachableError
from easyrec_lite.inputs.kafka.position import StreamPosition
from easyrec_lite.inputs.kafka.settings import Settings
from easyrec_lite.inputs.kafka.stretch import Stretch, decode

if TYPE_CHECKING:
    from easyrec_lite.inputs.messages import Decoder

_LOG = logging.getLogger(__name__)
_POLL_SECONDS = 0.1
_LOOK_SECONDS = 1.0
_ASK_SECONDS = 10.0
_CLOSE_SECONDS = 30.0  # it ends within a poll; but closing may come from a garbage collection, at any place
_GRACE_SECONDS = 1.0  # connections come and go; only a longer silence is worth a line


class ClosedError(Exception):
    """Reading was ended by `Feed.close`."""


class Feed:
    """Reads a topic from a position on, in a thread of its own, as far ahead as the limits allow.

    Partitions that the topic gets meanwhile are read too, from their start, unless the position has ends.

    Args:
        library: The client library.
        settings: The topic.
        decoder: What reads the messages.
        position: Where to start.
        refresh: Seconds after which the topic is looked at again: is it still the same, has it new partitions?
        max_rows: Rows after which it waits until somebody gets them.
        max_bytes: Bytes likewise.
    """

    def __init__(
        self,
        library: Library,
        settings: Settings,
        decoder: Decoder,
        position: StreamPosition,
        *,
        refresh: float,
        max_rows: int,
        max_bytes: int,
    ) -> None:
        self._library, self._settings, self._decoder, self._position = library, settings, decoder, position
        self._refresh, self._max_rows, self._max_bytes = refresh, max_rows, max_bytes
        self._next = {number: place.offset for number, place in position.partitions.items()}
        self._high: dict[int, int] = {}
        self._looked = -1.0
        self._missing_since: float | None = None
        self._connected, self._away = time.monotonic(), False
        # What follows is shared, under the condition.
        self._changed = threading.Condition()
        self._items: list[tuple[int, Stretch | Lost]] = []
        self._rows = self._bytes = 0
        self._only: frozenset[int] | None = None
        self._error: BaseException | None = None
        self._closed = self._over = False
        self._thread = threading.Thread(target=self._run, name=f"kafka-{settings.topic}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if not sys.is_finalizing():  # then the thread runs no more, and would never be joined
            self._thread.join(_CLOSE_SECONDS)

    def close(self) -> None:
        """Ends reading, for whoever waits in `get` too; from any thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def get(self, timeout: float, only: Collection[int] | None = None) -> list[tuple[int, Stretch | Lost]]:
        """All that was read since the last call, by partition; waits so many seconds if that is nothing.

        Args:
            timeout: Seconds.
            only: Read nothing but these partitions from now on; None: all.

        Raises:
            InputError: Reading failed; what was read before was returned.
            ClosedError: Somebody ended reading.
        """
        with self._changed:
            self._only = None if only is None else frozenset(only)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._items or self._error or self._over or self._closed, timeout)
            if self._closed:
                raise ClosedError
            items, self._items = self._items, []
            self._rows = self._bytes = 0
            self._changed.notify_all()
            if not items and self._error is not None:
                raise self._error
        return items

    def high_watermarks(self) -> Mapping[int, int]:
        """The offset behind the last message of each partition, as last heard."""
        return self._high

    def _run(self) -> None:
        try:
            client = self._library.connect(self._settings, self._refresh)
            try:
                client.assign(self._unfinished())
                while self._wait_for_room():
                    self._look(client)
                    self._poll(client)
            finally:
                client.close()
        except BaseException as error:  # it is raised again, where somebody waits for rows
            with self._changed:
                self._error = error
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _unfinished(self) -> dict[int, int]:
        ends = self._position.ends
        return {number: offset for number, offset in self._next.items() if ends is None or offset < ends[number]}

    def _wait_for_room(self) -> bool:
        """Waits while enough is read ahead; False if there is no more to do."""
        with self._changed:
            while not self._closed and (self._rows >= self._max_rows or self._bytes >= self._max_bytes):
                self._changed.wait()
                self._connected = time.monotonic()  # nobody was listening meanwhile
            return not self._closed and not (self._position.ends is not None and not self._unfinished())

    def _put(self, items: Sequence[tuple[int, Stretch | Lost]]) -> None:
        with self._changed:
            self._items += items
            for _, item in items:
                if isinstance(item, Stretch):
                    self._rows += item.left
                    self._bytes += item.size
            self._changed.notify_all()

    def _poll(self, client: Client) -> None:
        unfinished, only = self._unfinished(), self._only
        client.pause([number for number in self._next if number not in (unfinished if only is None else only)])
        try:
            fetched = client.poll(_POLL_SECONDS)
        except OutOfRangeError as error:
            self._skip(client, error.partition)
            return
        except InputError:
            # Of a topic made anew there is more to say than of a log that was cut.
            self._check_now(client)
            raise
        self._watch_connection(client)
        self._next |= {one.partition: one.next for one in fetched}
        if self._position.ends is not None:
            fetched = [_until(one, self._position.ends[one.partition]) for one in fetched]
        if fetched:
            stretches = decode(fetched, self._decoder, self._settings.topic, time.monotonic())
            self._put([(one.partition, stretch) for one, stretch in zip(fetched, stretches, strict=True)])

    def _look(self, client: Client) -> None:
        """Looks after the topic: whether it is the same, whether it has grown, how much there is to read."""
        now = time.monotonic()
        if now < self._looked + min(_LOOK_SECONDS, self._refresh):
            return
        self._looked = now
        self._high = client.high_watermarks()
        topic = client.describe()
        if topic is None:
            return
        if topic.partitions:
            self._missing_since = None
            self._check(topic)
            if self._position.ends is None:
                self._grow(client, topic)
        elif self._missing_since is None:
            # A broker that has just started may not know its topics yet.
            self._missing_since = now
        elif now > self._missing_since + 2 * self._refresh:
            raise missing(self._settings)

    def _check(self, topic: Topic) -> None:
        position = self._position
        position.check(replace(position, cluster=topic.cluster, topic_id=topic.id), self._settings.bootstrap)

    def _check_now(self, client: Client) -> None:
        if topic := client.describe(_ASK_SECONDS):
            self._check(topic)

    def _grow(self, client: Client, topic: Topic) -> None:
        new = [number for number in topic.partitions if number not in self._next and self._settings.reads(number)]
        if new:
            _LOG.info("topic %r has new partitions: %s", self._settings.topic, sorted(new))
            self._next |= dict.fromkeys(new, 0)
            client.assign(self._next)

    def _watch_connection(self, client: Client) -> None:
        now = time.monotonic()
        if client.connected:
            if self._away:
                _LOG.warning("%s: a broker answers again, after %.1f s", self._where(), now - self._connected)
            self._away, self._connected = False, now
        elif not self._away and now > self._connected + _GRACE_SECONDS:
            _LOG.warning("%s: no broker answers; trying until one does", self._where())
            self._away = True

    def _skip(self, client: Client, partition: int) -> None:
        """Goes to the first message there is, if that is allowed."""
        wanted = self._next[partition]
        rest = {number: offset for number, offset in self._unfinished().items() if number != partition}
        try:
            self._check_now(client)
            first = client.beginnings([partition], _ASK_SECONDS)[partition]
            end = client.ends([partition], _ASK_SECONDS)[partition]
        except UnreachableError:
            first, end = wanted, wanted  # the broker has gone away: ask again when it is back
        if wanted > end:
            raise InputError(
                self._where(),
                f"partition {partition} ending at offset {end}",
                f"a message at offset {wanted}, where it is to be read on",
                "the log was cut, or the offsets are another topic's; start with a new model_dir",
            )
        if wanted < first and not self._settings.skip_lost:
            raise self._gone(client, partition, wanted, first)
        if wanted < first:
            stop = first if self._position.ends is None else min(first, self._position.ends[partition])
            _LOG.warning("%s, partition %d: the offsets %d to %d are gone; they count as lost",
                         self._where(), partition, wanted, stop - 1)  # fmt: skip
            self._next[partition] = first
            self._put([(partition, Lost(partition, wanted, stop))])
        client.assign(rest)  # the client gives up on a partition that is out of range; so let it go and come again
        client.assign(self._unfinished())

    def _gone(self, client: Client, partition: int, wanted: int, first: int) -> InputError:
        client.pause([])
        client.assign({partition: first})
        times = [at for one in client.poll(_ASK_SECONDS) for at in one.timestamps[:1]]
        of_first = f", of {_time(times[0] / 1000)}" if times and times[0] >= 0 else ""
        newest = self._position.time
        of_wanted = f" (the newest row read is of {_time(newest)})" if newest is not None else ""
        return InputError(
            f"{self._where()}, partition {partition}",
            f"the first message at offset {first}{of_first}",
            f"offset {wanted}, the next one to read{of_wanted}",
            f"{first - wanted} offsets were deleted by retention; raise the topic's retention, "
            f"or set {self._settings.path}.skip_lost to go on without them",
        )

    def _where(self) -> str:
        return f"topic {self._settings.topic!r} at {self._settings.bootstrap}"


def missing(settings: Settings) -> InputError:
    """The error for a topic that isn't there."""
    place = f"topic {settings.topic!r} at {settings.bootstrap}"
    return InputError(place, "no such topic", "a topic with messages", "make the topic, or mend its name")


def _until(fetched: Fetched, end: int) -> Fetched:
    if fetched.next <= end:
        return fetched
    count = sum(offset < end for offset in fetched.offsets)
    return Fetched(fetched.partition, fetched.offsets[:count], fetched.timestamps[:count], fetched.values[:count], end)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ", timespec="seconds")
