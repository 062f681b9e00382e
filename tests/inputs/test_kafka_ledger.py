from __future__ import annotations

from pathlib import Path

import pytest

from easyrec_lite.inputs import InputError
from easyrec_lite.inputs.kafka.backlog import Segment
from easyrec_lite.inputs.kafka.ledger import Entry, Ledger
from easyrec_lite.inputs.kafka.position import Place, StreamPosition

START = StreamPosition("cluster", "clicks", "id", 0, {0: Place(5), 1: Place(0)})


def entry(batch: int) -> Entry:
    """Batch n takes message 5 + n of partition 0, and rows of the same message of partition 1."""
    segments = [
        Segment(0, Place(5 + batch), Place(6 + batch)),
        Segment(1, Place(0, batch), Place(0, batch + 1)),
    ]
    if batch == 2:
        segments.insert(1, Segment(7, Place(0), Place(40), lost=True))
    return Entry(batch, segments, 3, 1)


def at(batch: int) -> StreamPosition:
    places = {0: Place(5 + batch), 1: Place(0, batch)} | ({7: Place(40)} if batch > 2 else {})
    return StreamPosition("cluster", "clicks", "id", batch, places)


def write(folder: Path, batches: int, per_file: int = 3) -> Ledger:
    ledger = Ledger(folder, batches_per_file=per_file)
    ledger.begin(START)
    for batch in range(batches):
        ledger.append(entry(batch), at(batch))
    return ledger


def test_gives_back_what_was_written_from_any_batch_on(tmp_path: Path) -> None:
    write(tmp_path, 7)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{n:012d}.jsonl" for n in (0, 3, 6)]
    assert Ledger(tmp_path).first_position() == START
    for batch in range(8):
        assert Ledger(tmp_path).entries(at(batch)) == [entry(n) for n in range(batch, 7)]


def test_goes_on_where_it_ended(tmp_path: Path) -> None:
    write(tmp_path, 4)
    ledger = Ledger(tmp_path, batches_per_file=3)
    ledger.entries(at(2))
    ledger.append(entry(4), at(4))
    assert ledger.entries(at(3)) == [entry(3), entry(4)]
    with pytest.raises(ValueError, match="batch 9 doesn't follow batch 4"):
        ledger.append(entry(9), at(9))


def test_there_may_be_none(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    assert (ledger.first_position(), ledger.entries(START)) == (None, [])
    ledger.forget_before(10)
    assert not (tmp_path / "ledger").exists()


def test_a_record_torn_anywhere_is_cut(tmp_path: Path) -> None:
    write(tmp_path, 3, per_file=9)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    end_of_second = len(b"".join(whole.splitlines(keepends=True)[:3]))
    for size in range(end_of_second, len(whole)):
        path.write_bytes(whole[:size])
        assert Ledger(tmp_path).entries(at(0)) == [entry(0), entry(1)]
        assert path.stat().st_size == end_of_second
    path.write_bytes(whole[:-2] + b"x\n")
    ledger = Ledger(tmp_path)
    assert ledger.entries(at(0)) == [entry(0), entry(1)]
    ledger.append(entry(2), at(2))
    assert path.read_bytes() == whole


def test_damage_elsewhere_is_an_error_that_names_the_line(tmp_path: Path) -> None:
    write(tmp_path, 5)
    first, second = sorted(tmp_path.iterdir())
    whole = first.read_bytes()
    lines = whole.splitlines(keepends=True)
    for damaged, line in (
        (whole.replace(b'"rows":3', b'"rows":4', 1), 2),  # a wrong checksum
        (lines[0] + lines[2], 2),  # a batch is missing
        (lines[0] + lines[1] + lines[1], 3),  # a batch is there twice
        (whole[:-3], 4),  # torn, but not the last file
        (b"", 1),
    ):
        first.write_bytes(damaged)
        with pytest.raises(InputError, match=f"{first.name}:{line}: found a damaged record"):
            Ledger(tmp_path).entries(at(0))
    first.write_bytes(whole)
    second.write_bytes(b"".join([*second.read_bytes().splitlines(keepends=True)][1:]))
    with pytest.raises(InputError, match=f"{second.name}:1: found a damaged record"):
        Ledger(tmp_path).entries(at(0))


def test_a_lost_file_in_the_middle_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, 8)
    sorted(tmp_path.iterdir())[1].unlink()
    with pytest.raises(InputError, match=r"000000000006\.jsonl:1: found a damaged record"):
        Ledger(tmp_path).entries(at(0))
    assert Ledger(tmp_path).entries(at(7)) == [entry(7)]


def test_positions_that_it_does_not_have_are_refused(tmp_path: Path) -> None:
    write(tmp_path, 3)
    with pytest.raises(InputError, match="the batches 0 to 2; expected one that reaches batch 4"):
        Ledger(tmp_path).entries(at(4))
    elsewhere = StreamPosition("cluster", "clicks", "id", 1, {0: Place(99), 1: Place(0, 1)})
    with pytest.raises(InputError, match=r"from 1 on read partition 0 from \(6, 0\); expected from \(99, 0\)"):
        Ledger(tmp_path).entries(elsewhere)


def test_forgets_whole_files_only(tmp_path: Path) -> None:
    ledger = write(tmp_path, 9)
    for batch, left in ((2, [0, 3, 6]), (3, [3, 6]), (5, [3, 6]), (100, [6])):
        ledger.forget_before(batch)
        assert sorted(int(path.stem) for path in tmp_path.iterdir()) == left
    assert Ledger(tmp_path).entries(at(7)) == [entry(7), entry(8)]


def test_a_run_that_goes_on_elsewhere_begins_anew(tmp_path: Path) -> None:
    ledger = write(tmp_path, 7)
    elsewhere = StreamPosition("cluster", "clicks", "id", 5, {0: Place(2), 1: Place(90)})
    moved = ledger.restart(elsewhere)
    assert moved == StreamPosition("cluster", "clicks", "id", 8, {0: Place(2), 1: Place(90)})
    assert Ledger(tmp_path).entries(moved) == []
    there = Entry(8, [Segment(0, Place(2), Place(4))], 3, 0)
    ledger.append(there, moved)
    assert Ledger(tmp_path).entries(moved) == [there]
    assert Ledger(tmp_path).first_position() == START


def test_whoever_goes_back_gives_up_what_was_begun_anew(tmp_path: Path) -> None:
    ledger = write(tmp_path, 7)
    moved = ledger.restart(StreamPosition("cluster", "clicks", "id", 7, {0: Place(2), 1: Place(90)}))
    for batch in range(moved.batch, moved.batch + 5):
        offset = 2 + batch - moved.batch
        before = StreamPosition("cluster", "clicks", "id", batch, {0: Place(offset), 1: Place(90)})
        ledger.append(Entry(batch, [Segment(0, Place(offset), Place(offset + 1))], 1, 0), before)
    assert len(Ledger(tmp_path).entries(moved)) == 5
    again = Ledger(tmp_path, batches_per_file=3)
    assert again.entries(at(4)) == [entry(n) for n in range(4, 7)]
    again.append(entry(7), at(7))
    assert Ledger(tmp_path).entries(at(0)) == [entry(n) for n in range(8)]
    with pytest.raises(InputError, match="a ledger of the batches 6 to 7"):
        Ledger(tmp_path).entries(StreamPosition("cluster", "clicks", "id", 12, moved.partitions))


def test_an_empty_ledger_begins_anew_too(tmp_path: Path) -> None:
    moved = Ledger(tmp_path / "ledger").restart(START)
    assert moved.batch == 1
    assert Ledger(tmp_path / "ledger").entries(moved) == []
