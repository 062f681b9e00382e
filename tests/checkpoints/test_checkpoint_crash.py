"""A loss of power or a kill at any instant leaves the old state or the new one.

A kill does not test fsync, since the page cache survives it. So the order of the calls is recorded and replayed on a
pessimistic model of a disk, in which whatever was not fsynced may be there or not, names as well as bytes.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from easyrec_lite.checkpoints import (
    Files,
    NumpyTensor,
    atomic_write_text,
    clean_up,
    latest,
    list_checkpoints,
    prune,
    save,
)

Operation = tuple[str, Path, object]


class RecordingFiles(Files):
    """Records (operation, path, bytes written or new path)."""

    def __init__(self) -> None:
        super().__init__(lambda operation, path: self.log.append((operation, path, None)))
        self.log: list[Operation] = []

    def write(self, file: BinaryIO, data: bytes | bytearray | memoryview) -> None:
        super().write(file, data)
        self.log[-1] = (*self.log[-1][:2], bytes(data))

    def rename(self, source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
        super().rename(source, target)
        self.log[-1] = (*self.log[-1][:2], Path(target))


@dataclass
class File:
    content: bytes = b""
    durable: bytes = b""


@dataclass
class Directory:
    entries: dict[str, File | Directory] = field(default_factory=dict)
    durable: dict[str, File | Directory] = field(default_factory=dict)
    pending: list[dict[str, File | Directory | None]] = field(default_factory=list)

    def change(self, changes: dict[str, File | Directory | None]) -> None:
        """Change names, all of `changes` at once or none."""
        self.pending.append(changes)
        _apply(self.entries, changes)


def _apply(entries: dict[str, File | Directory], changes: dict[str, File | Directory | None]) -> None:
    for name, node in changes.items():
        entries.pop(name, None)
        if node is not None:
            entries[name] = node


class Disk:
    """What the log of calls has made of an empty directory."""

    def __init__(self, root: Path, log: list[Operation]) -> None:
        self._root, self._top = root, Directory()
        for operation, path, argument in log:
            self._run(operation, path, argument)

    def _directory(self, path: Path) -> Directory:
        node = self._top
        for name in path.relative_to(self._root).parts:
            node = node.entries[name]  # type: ignore[assignment]
        return node

    def _run(self, operation: str, path: Path, argument: object) -> None:
        if operation == "sync_dir":
            directory = self._directory(path)
            directory.durable, directory.pending = dict(directory.entries), []
            return
        parent = self._directory(path.parent)
        if operation == "make_dir":
            parent.change({path.name: Directory()})
        elif operation == "create":
            parent.change({path.name: File()})
        elif operation == "rename":
            assert isinstance(argument, Path)
            parent.change({path.name: None, argument.name: parent.entries[path.name]})
        elif operation in ("remove", "remove_dir"):
            parent.change({path.name: None})
        else:
            file = parent.entries[path.name]
            assert isinstance(file, File)
            if operation == "write":
                assert isinstance(argument, bytes)
                file.content += argument
            elif operation == "sync":
                file.durable = file.content
            else:
                raise AssertionError(operation)

    def after_crash(self, target: Path, survives: Callable[[], bool]) -> None:
        """Write to `target` what is there after the power came back."""
        _survive(self._top, target, survives)


def _survive(directory: Directory, target: Path, survives: Callable[[], bool]) -> None:
    target.mkdir()
    entries = dict(directory.durable)
    for changes in directory.pending:
        if survives():
            _apply(entries, changes)
    for name, node in entries.items():
        if isinstance(node, Directory):
            _survive(node, target / name, survives)
        elif node.content == node.durable or survives():
            (target / name).write_bytes(node.content)
        else:  # nothing new, or the length without the bytes
            (target / name).write_bytes(node.durable if survives() else bytes(len(node.content)))


def crashes(tmp_path: Path, root: Path, log: list[Operation], first: int) -> list[tuple[int, Path]]:
    """Return (number of calls done, directory found after the crash) for every instant from `first` calls on."""
    found = []
    for done in range(first, len(log) + 1):
        for fate in range(12):
            chance = random.Random(fate)
            survives = (lambda: False, lambda: True)[fate] if fate < 2 else (lambda c=chance: c.random() < 0.5)
            target = tmp_path / f"crash-{done}-{fate}"
            Disk(root, log[:done]).after_crash(target, survives)
            found.append((done, target))
    return found


def tensors(step: int) -> list[NumpyTensor]:
    table = np.full((70_000, 4), step, np.float32)  # big enough for a file of its own
    return [NumpyTensor("table", table), NumpyTensor("bias", np.full(3, step, np.float32))]


def steps_and_values(model_dir: Path) -> list[int]:
    """Return the steps of the checkpoints, each proven complete and of the right values."""
    checkpoints = list_checkpoints(model_dir)
    for checkpoint in checkpoints:
        checkpoint.verify()
        for tensor in tensors(checkpoint.step):
            np.testing.assert_array_equal(checkpoint.read(tensor.name), tensor.array)
    return [checkpoint.step for checkpoint in checkpoints]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Operation], dict[str, int]]:
    """A log of two saves and a prune, with the number of calls up to the end of each."""
    root = tmp_path_factory.mktemp("root")
    files = RecordingFiles()
    ends = {}
    save(root / "model", 1, tensors(1), files=files)
    ends["first"] = len(files.log)
    save(root / "model", 2, tensors(2), files=files)
    ends["second"] = len(files.log)
    prune(root / "model", 1, files=files)
    return root, files.log, ends


def test_order_is_write_fsync_rename_fsync_of_the_parent(
    recorded: tuple[Path, list[Operation], dict[str, int]],
) -> None:
    root, log, ends = recorded
    calls = [(operation, path.name.partition("-")[0]) for operation, path, _ in log[ends["first"] : ends["second"]]]
    assert calls[0] == ("make_dir", ".step")
    assert calls[-3:] == [("sync_dir", ".step"), ("rename", ".step"), ("sync_dir", "checkpoints")]
    last = {path: operation for operation, path, _ in log[ends["first"] : ends["second"]]}
    created = [path for operation, path, _ in log[ends["first"] : ends["second"]] if operation == "create"]
    assert sorted(path.name for path in created) == ["00000-table.npy", "manifest.json", "packed.npys"]
    assert {last[path] for path in created} == {"sync"}
    made = [(operation, path.relative_to(root).as_posix()) for operation, path, _ in log[:4]]
    assert made == [
        ("make_dir", "model"),
        ("sync_dir", "."),
        ("make_dir", "model/checkpoints"),
        ("sync_dir", "model"),
    ]


def test_a_loss_of_power_leaves_the_old_state_or_the_new(
    tmp_path: Path, recorded: tuple[Path, list[Operation], dict[str, int]]
) -> None:
    root, log, ends = recorded
    for done, target in crashes(tmp_path, root, log, ends["first"]):
        steps = steps_and_values(target / "model")
        if done < ends["second"]:
            assert steps in ([1], [1, 2])
        else:
            assert steps in ([1, 2], [2])
        if done == ends["second"]:
            assert steps == [1, 2], "save returned before the checkpoint was safe"
        if done == len(log):
            assert steps == [2]
        clean_up(target / "model")
        assert [path.name for path in (target / "model" / "checkpoints").iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("operation", "start", "end"),
    [("sync", "first", "second"), ("sync_dir", "first", "second"), ("sync_dir", "second", "last")],
)
def test_the_model_notices_a_missing_fsync(
    tmp_path: Path, recorded: tuple[Path, list[Operation], dict[str, int]], operation: str, start: str, end: str
) -> None:
    root, log, ends = recorded
    first, last = ends[start], ends.get(end, len(log))
    careless = [call for i, call in enumerate(log[:last]) if i < first or call[0] != operation]

    def is_damaged(model_dir: Path) -> bool:
        try:
            return not steps_and_values(model_dir)
        except Exception:
            return True

    assert any(is_damaged(target / "model") for _, target in crashes(tmp_path, root, careless, first))


def test_atomic_writes_leave_the_old_text_or_the_new(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    files = RecordingFiles()
    atomic_write_text(root / "a" / "x.txt", "old", files)
    first = len(files.log)
    # As the model names no modes of opening, the fsync through a second handle is the same call.
    atomic_write_text(root / "a" / "x.txt", "new", files)
    for done, target in crashes(tmp_path, root, files.log, first):
        found = (target / "a" / "x.txt").read_text()
        assert found in ("old", "new")
        if done in (first, len(files.log)):
            assert found == ("old" if done == first else "new")


KILLS = """
import json, os, signal, sys
from pathlib import Path
import numpy as np
from easyrec_lite.checkpoints import Files, NumpyTensor, clean_up, latest, list_checkpoints, prune, save

def tensors(step):
    table = np.full((70_000, 4), step, np.float32)
    return [NumpyTensor("table", table), NumpyTensor("bias", np.full(3, step, np.float32))]

class Killed(Files):
    def __init__(self, nth, torn):
        super().__init__(self.count)
        self.left, self.torn = nth, torn

    def count(self, operation, path):
        self.left -= 1
        if self.left == 0 and not (self.torn and operation == "write"):
            os.kill(os.getpid(), signal.SIGKILL)

    def write(self, file, data):
        if self.left == 1 and self.torn:
            file.write(memoryview(data)[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        super().write(file, data)

def act(action, model_dir, files):
    save(model_dir, 3, tensors(3), files=files) if action == "save" else prune(model_dir, 1, files=files)

root, action, torn = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "torn"
results, status = [], 1
while status:
    nth = len(results) + 1
    model_dir = root / str(nth)
    for step in (1, 2):
        save(model_dir, step, tensors(step))
    child = os.fork()
    if child == 0:
        act(action, model_dir, Killed(nth, torn))
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    checkpoints = list_checkpoints(model_dir)
    for checkpoint in checkpoints:
        targets = [NumpyTensor(t.name, np.zeros_like(t.array)) for t in tensors(0)]
        checkpoint.restore(targets)
        for target, expected in zip(targets, tensors(checkpoint.step)):
            np.testing.assert_array_equal(target.array, expected.array)
    cleaned = len(clean_up(model_dir))
    results.append([[c.step for c in checkpoints], cleaned, sorted(os.listdir(model_dir / "checkpoints"))])
print(json.dumps(results))
"""


@pytest.mark.parametrize(
    ("action", "torn", "possible"),
    [("save", "whole", ([1, 2], [1, 2, 3])), ("save", "torn", ([1, 2], [1, 2, 3])), ("prune", "whole", ([1, 2], [2]))],
)
def test_a_kill_at_every_call(tmp_path: Path, action: str, torn: str, possible: tuple[list[int], list[int]]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path), action, torn],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert len(results) > 5
    before, after = possible
    seen = [steps for steps, _, _ in results]
    # The old state up to some call, the new one from then on.
    switch = seen.index(after)
    assert seen == [before] * switch + [after] * (len(seen) - switch)
    assert switch > 0
    assert any(cleaned for _, cleaned, _ in results)
    for steps, _, names in results:
        assert names == [f"step-{step:012d}" for step in steps]


def test_a_kill_leaves_the_newest_restorable(tmp_path: Path) -> None:
    save(tmp_path, 1, tensors(1))
    (tmp_path / "checkpoints" / ".step-000000000002-00000000.tmp").mkdir()
    newest = latest(tmp_path)
    assert newest is not None
    assert newest.step == 1
