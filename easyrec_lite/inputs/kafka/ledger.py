"""Which rows made up each batch, on disk before the batch is trained, so that a restart makes the same ones again."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from easyrec_lite.inputs.errors import InputError
from easyrec_lite.inputs.kafka.backlog import Segment
from easyrec_lite.inputs.kafka.position import Place, StreamPosition

_LOG = logging.getLogger(__name__)
_ENDING = ".jsonl"
_HINT = "put the checkpoint back that belongs to it, or delete {}: the rows after the position then make new batches"


@dataclass(frozen=True, slots=True)
class Entry:
    """One batch.

    Attributes:
        batch: Its number.
        segments: What it took, in the order of its rows.
        rows: Its usable rows.
        bad: Its others.
    """

    batch: int
    segments: Sequence[Segment]
    rows: int
    bad: int


class Disk:
    """The file operations that change something; each is done, and on the disk, when it returns."""

    def create(self, path: Path, data: bytes) -> None:
        """Makes a file that appears whole or not at all."""
        partial = path.with_name(f".{path.name}.tmp")
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        self._sync_folder(path.parent)

    def append(self, path: Path, data: bytes) -> None:
        """Adds to a file; only a part of it may be there after a crash."""
        with open(path, "ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def truncate(self, path: Path, size: int) -> None:
        """Cuts a file."""
        with open(path, "r+b") as file:
            file.truncate(size)
            os.fsync(file.fileno())

    def remove(self, path: Path) -> None:
        """Deletes a file."""
        path.unlink(missing_ok=True)
        self._sync_folder(path.parent)

    @staticmethod
    def _sync_folder(path: Path) -> None:
        folder = os.open(path, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # some network file systems know no fsync of directories
                os.fsync(folder)
        finally:
            os.close(folder)


class Ledger:
    """The batches of one run, in files of some thousand.

    A file is named by the number of its first batch. Its first line is the position before that batch, and one line
    follows for each batch; every line starts with its checksum. A run that goes on elsewhere in the topic begins a file
    that says so, and what was before stays: whoever goes back to it makes the same batches again, and then others.

    Args:
        folder: Where the files are; made when the first one is.
        disk: The file operations.
        batches_per_file: Batches a file.
    """

    def __init__(self, folder: str | os.PathLike[str], disk: Disk | None = None, batches_per_file: int = 4096) -> None:
        self.folder = Path(folder)
        self._disk = disk if disk is not None else Disk()
        self._batches_per_file = batches_per_file
        self._lock = threading.Lock()  # forget_before is called from the training's thread
        self._next = 0
        self._last: tuple[int, Path] | None = None  # the file that is written, and its first batch

    def first_position(self) -> StreamPosition | None:
        """The position that the ledger starts at; None if there is no ledger."""
        files = self._files()
        return self._read(files[0], last=len(files) == 1)[0] if files else None

    def entries(self, start: StreamPosition) -> list[Entry]:
        """The batches from a position on; the ledger then continues behind them.

        A record that a crash left unfinished is cut off.

        Raises:
            InputError: The ledger is damaged, or doesn't belong to the position.
        """
        with self._lock:
            files = self._files()
            if not files:
                return []
            # Files wholly before the start are not read: nothing is known to be wrong with them, and nothing needed.
            first = max((i for i, (number, _) in enumerate(files) if number <= start.batch), default=0)
            chain, found, used = self._chain(files[first:])
            for _, path in reversed(files[first + used :]):
                self._disk.remove(path)  # of a future that is given up
            self._next, self._last = chain.batch, None
        begin = files[first][0]
        if not begin <= start.batch <= chain.batch:
            raise InputError(
                str(self.folder),
                f"a ledger of the batches {begin} to {chain.batch - 1}",
                f"one that reaches batch {start.batch}, the next one of the position to start from",
                _HINT.format(self.folder),
            )
        before, after = found[: start.batch - begin], found[start.batch - begin :]
        places = {segment.partition: segment.end for entry in before for segment in entry.segments}
        bounds: dict[int, Place] = {}
        for segment in (segment for entry in after for segment in entry.segments):
            bounds.setdefault(segment.partition, segment.end)
        for partition, place in start.partitions.items():
            low, high = places.get(partition, place), bounds.get(partition, place)
            if not low <= place <= high:
                raise InputError(
                    str(self.folder),
                    f"a ledger whose batches from {start.batch} on read partition {partition} from {tuple(low)}",
                    f"from {tuple(place)}, as the position to start from",
                    _HINT.format(self.folder),
                )
        return after

    def begin(self, position: StreamPosition) -> None:
        """Makes the ledger, if there is none."""
        with self._lock:
            if not self._files():
                self.folder.mkdir(parents=True, exist_ok=True)
                self._start_file(position)
                self._next = position.batch

    def restart(self, position: StreamPosition) -> StreamPosition:
        """Begins anew at a position anywhere in the topic, and gives it back with the number of its next batch.

        Whoever goes on from an earlier position takes that back.
        """
        with self._lock:
            files = self._files()
            last = max(self._chain(files[-1:])[0].batch, position.batch) if files else position.batch
            position = replace(position, batch=last + 1)  # a name that no file has
            self.folder.mkdir(parents=True, exist_ok=True)
            self._start_file(position, anew=True)
            self._next, self._last = position.batch, None
            return position

    def append(self, entry: Entry, before: StreamPosition) -> None:
        """Adds a batch, made at position `before`, and returns when it is on the disk."""
        with self._lock:
            if entry.batch != self._next:
                raise ValueError(f"batch {entry.batch} doesn't follow batch {self._next - 1}")
            if self._last is None:
                self._last = self._files()[-1]
            if entry.batch - self._last[0] >= self._batches_per_file:
                self._last = (entry.batch, self._start_file(before))
            self._disk.append(self._last[1], _line(_to_state(entry)))
            self._next += 1

    def forget_before(self, batch: int) -> None:
        """Deletes the files that only hold batches before this one."""
        with self._lock:
            files = self._files()
            for (_, path), (following, _) in itertools.pairwise(files):
                if following <= batch:
                    self._disk.remove(path)

    def _files(self) -> list[tuple[int, Path]]:
        paths = self.folder.glob(f"*{_ENDING}") if self.folder.is_dir() else ()
        return sorted((int(path.stem), path) for path in paths if path.stem.isdigit())

    def _start_file(self, position: StreamPosition, *, anew: bool = False) -> Path:
        path = self.folder / f"{position.batch:012d}{_ENDING}"
        head = {"position": json.loads(position.to_json())} | ({"anew": True} if anew else {})
        self._disk.create(path, _line(head))
        return path

    def _chain(self, files: Sequence[tuple[int, Path]]) -> tuple[StreamPosition, list[Entry], int]:
        """Reads files up to one that begins anew, and checks that each batch follows the one before.

        Returns:
            The position behind them, the batches, and how many of the files these are.
        """
        chain: StreamPosition | None = None
        entries: list[Entry] = []
        used = 0
        for index, file in enumerate(files):
            position, found, anew = self._read(file, last=index == len(files) - 1)
            if anew and chain is not None:
                break
            used += 1
            places = {**(chain.partitions if chain else {})}
            moved_back = any(position.partitions.get(number, Place(0)) < place for number, place in places.items())
            if position.batch != (chain.batch if chain else file[0]) or moved_back:
                raise self._damaged(file[1], 1)
            places.update(position.partitions)
            for line, entry in enumerate(found, start=2):
                if entry.batch != position.batch + line - 2:
                    raise self._damaged(file[1], line)
                for segment in entry.segments:
                    if segment.start < places.get(segment.partition, Place(0)) or segment.end < segment.start:
                        raise self._damaged(file[1], line)
                    places[segment.partition] = segment.end
            chain = replace(position, batch=position.batch + len(found), partitions=places)
            entries += found
        assert chain is not None, "there is a file"
        return chain, entries, used

    def _read(self, file: tuple[int, Path], *, last: bool) -> tuple[StreamPosition, list[Entry], bool]:
        """Reads a file, and whether it begins anew; cuts what a crash left of the last record of the last one."""
        path = file[1]
        anew = False
        position: StreamPosition | None = None
        entries: list[Entry] = []
        good = 0
        lines = path.read_bytes().splitlines(keepends=True)
        for number, line in enumerate(lines, start=1):
            try:
                state = _parse(line)
                if position is None:
                    position = StreamPosition.from_json(json.dumps(state["position"]))
                    anew = bool(state.get("anew"))
                else:
                    entries.append(_from_state(state))
            except (ValueError, KeyError, TypeError):
                if last and number == len(lines) and position is not None:
                    _LOG.info("%s: the last record is unfinished; it goes", path)
                    self._disk.truncate(path, good)
                    break
                raise self._damaged(path, number) from None
            good += len(line)
        if position is None:
            raise self._damaged(path, 1)
        return position, entries, anew

    def _damaged(self, path: Path, line: int) -> InputError:
        return InputError(
            f"{path}:{line}",
            "a damaged record",
            "one that follows the one before",
            f"restore the file, or delete {self.folder}: the rows after the position then make new batches",
        )


def _line(state: object) -> bytes:
    text = json.dumps(state, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _parse(line: bytes) -> dict:
    checksum, _, text = line.partition(b" ")
    if not text.endswith(b"\n") or int(checksum, 16) != zlib.crc32(text[:-1]):
        raise ValueError(line)
    state = json.loads(text)
    if not isinstance(state, dict):
        raise TypeError(line)
    return state


def _to_state(entry: Entry) -> dict[str, object]:
    def segments(lost: bool) -> Iterator[list[int]]:
        for index, one in enumerate(entry.segments):
            if one.lost == lost:
                yield [one.partition, *one.start, *one.end, *([index] if lost else [])]

    state: dict[str, object] = {"batch": entry.batch, "rows": entry.rows, "bad": entry.bad}
    state["segments"] = list(segments(lost=False))
    if any(one.lost for one in entry.segments):
        state["lost"] = list(segments(lost=True))
    return state


def _from_state(state: dict) -> Entry:
    segments = [Segment(p, Place(o, r), Place(q, s)) for p, o, r, q, s in state["segments"]]
    for p, o, r, q, s, index in state.get("lost", ()):
        segments.insert(index, Segment(p, Place(o, r), Place(q, s), lost=True))
    return Entry(state["batch"], segments, state["rows"], state["bad"])
