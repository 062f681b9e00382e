"""What was read and not yet used, partition by partition."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from easyrec_lite.inputs.kafka.position import Place
from easyrec_lite.inputs.kafka.stretch import Piece, Stretch


@dataclass(slots=True)
class Lost:
    """Messages that the broker no longer had: those from `offset` up to `next`."""

    partition: int
    offset: int
    next: int


@dataclass(frozen=True, slots=True)
class Segment:
    """What a batch took from a partition.

    Attributes:
        partition: The partition.
        start: The place before; gaps of the log belong to the segment behind them.
        end: The place after.
        lost: Its messages weren't there any more.
    """

    partition: int
    start: Place
    end: Place
    lost: bool = False


class Backlog:
    """Stretches of several partitions, in queues.

    Attributes:
        places: The next place of each partition.
        usable: Usable rows that wait.
    """

    def __init__(self, places: Mapping[int, Place]) -> None:
        self.places = dict(places)
        self.usable = 0
        self._queues: dict[int, deque[Stretch | Lost]] = {}

    def add(self, item: Stretch | Lost, partition: int) -> None:
        """Appends what follows in a partition; rows before the partition's place are cut off."""
        place = self.places.setdefault(partition, Place(0))
        queue = self._queues.setdefault(partition, deque())
        if isinstance(item, Stretch):
            if not queue and place.row and len(item.offsets) and item.offsets[0] == place.offset:
                item.take(item.at(place))
            self.usable += item.usable
        queue.append(item)

    @property
    def waiting(self) -> bool:
        """Whether anything waits, be it only a gap."""
        return any(self._queues.values())

    def oldest(self) -> float | None:
        """When the first of the rows that wait was read; None without rows."""
        times = [
            item.arrived
            for queue in self._queues.values()
            for item in queue
            if isinstance(item, Stretch) and item.left > 0
        ]
        return min(times, default=None)

    def take(self, wanted: int) -> Iterator[tuple[Segment, Piece | None]]:
        """Takes so many usable rows, or all if there aren't as many: of each partition that has some in turn.

        The partition that was served last is the last one served in the next call.
        """
        while wanted > 0 and (ready := [number for number, queue in self._queues.items() if queue]):
            share = -(-wanted // len(ready))
            for number in ready:
                self._queues[number] = self._queues.pop(number)  # to the end of the order
                for segment, piece in self._take(number, min(share, wanted)):
                    wanted -= len(piece.rows) if piece is not None else 0
                    yield segment, piece
                if wanted <= 0:
                    break

    def take_to(self, partition: int, end: Place) -> Iterator[tuple[Segment, Piece | None]]:
        """Takes what there is of a partition up to a place."""
        queue = self._queues.get(partition, deque())
        while queue and self.places[partition] < end:
            item = queue[0]
            if isinstance(item, Lost):
                stop = min(item.next, end.offset)
                yield self._move(partition, Place(stop), lost=True), None
                if stop < item.next:
                    return
                queue.popleft()
            elif item.next[partition] <= end.offset:
                yield self._taken(partition, item, int(item.bounds[-1]))
            else:
                segment, piece = self._taken(partition, item, item.at(end))
                yield (Segment(partition, segment.start, end), piece)
                self.places[partition] = end
                return

    def _take(self, partition: int, wanted: int) -> Iterator[tuple[Segment, Piece | None]]:
        queue = self._queues[partition]
        while queue and wanted > 0:
            item = queue[0]
            if isinstance(item, Lost):
                queue.popleft()
                yield self._move(partition, Place(item.next), lost=True), None
            else:
                segment, piece = self._taken(partition, item, item.after(wanted))
                wanted -= len(piece.rows)
                yield segment, piece

    def _taken(self, partition: int, item: Stretch, number: int) -> tuple[Segment, Piece]:
        piece = item.take(number)
        self.usable -= len(piece.rows)
        if number == item.bounds[-1]:
            self._queues[partition].popleft()
        return self._move(partition, piece.moved.get(partition, self.places[partition])), piece

    def _move(self, partition: int, place: Place, *, lost: bool = False) -> Segment:
        segment = Segment(partition, self.places[partition], max(place, self.places[partition]), lost)
        self.places[partition] = segment.end
        return segment
