"""Which versions serve, with models that are only names."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from easyrec_lite.serving.failures import LoadError, RequestError, Status
from easyrec_lite.serving.server import model_versions
from easyrec_lite.serving.server.model_versions import ModelVersions, Policy, folders


class Model:
    """Stands for a loaded one."""

    def __init__(self, path: Path) -> None:
        if (path / "broken").exists():
            raise LoadError(f"{path}: broken")
        self.path, self.closed = path, False

    def close(self) -> None:
        assert not self.closed
        self.closed = True


class Watched:
    """A directory, and what follows it."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.path = path
        self.said: list[str] = []
        self.loaded: list[Model] = []
        self.versions = ModelVersions("m", path, self._load, report=self.said.append, **options)

    def _load(self, path: Path) -> Any:
        self.loaded.append(Model(path))
        return self.loaded[-1]

    def add(self, *versions: int, broken: bool = False) -> None:
        for version in versions:
            (self.path / str(version)).mkdir()
            if broken:
                (self.path / str(version) / "broken").touch()

    def remove(self, version: int) -> None:
        (self.path / str(version)).rename(self.path / f".{version}.gone")

    def poll(self) -> list[int]:
        self.versions.poll()
        return self.versions.serving()

    def states(self) -> dict[int, str]:
        return {found.version: found.state for found in self.versions.statuses()}


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_the_highest_version_serves(watched: Watched) -> None:
    watched.add(2, 10, 9)
    assert watched.poll() == [10]
    assert [model.path.name for model in watched.loaded] == ["10"]  # the others are not even loaded
    with watched.versions.held() as served:
        assert served.version == 10
    assert watched.states() == {10: "AVAILABLE"}
    assert watched.poll() == [10]
    assert len(watched.loaded) == 1


def test_a_version_is_freed_when_its_last_request_ends(watched: Watched) -> None:
    watched.add(1)
    watched.poll()
    with watched.versions.held() as first, watched.versions.held():
        watched.add(2)
        assert watched.poll() == [2]
        assert watched.states() == {2: "AVAILABLE", 1: "UNLOADING"}
        with watched.versions.held() as second:
            assert (first.version, second.version) == (1, 2)
        with pytest.raises(RequestError, match="version 1 does not serve; versions that serve: 2"):
            watched.versions.held(1).__enter__()
        watched.poll()
        assert not watched.loaded[0].closed
    watched.poll()
    assert [model.closed for model in watched.loaded] == [True, False]
    assert watched.states() == {2: "AVAILABLE", 1: "END"}


def test_the_newest_of_the_rest_serves_again(watched: Watched) -> None:
    watched.add(1, 2)
    assert watched.poll() == [2]
    watched.remove(2)
    assert watched.poll() == [1]
    assert watched.versions.counts().swaps == 2
    assert watched.loaded[0].closed


def test_the_last_version_goes_on_when_its_folder_is_gone(watched: Watched) -> None:
    watched.add(1)
    watched.poll()
    watched.remove(1)
    for _ in range(3):
        assert watched.poll() == [1]
    assert watched.said[-1].endswith("no version folder; version 1 goes on serving")
    assert sum("goes on serving" in text for text in watched.said) == 1


def test_a_version_that_can_not_be_loaded(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    watched.add(1)
    watched.poll()
    watched.add(2, broken=True)
    for _ in range(3):
        assert watched.poll() == [1]
    assert watched.versions.counts().load_failures == 1  # not tried over and over
    (status,) = watched.versions.statuses(2)
    assert (status.state, status.status) == ("END", Status.INVALID_ARGUMENT)
    assert status.message.endswith("broken")
    (watched.path / "2" / "broken").unlink()  # somebody mends it
    assert watched.poll() == [2]


def test_a_failed_version_is_tried_again_later(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    watched.add(2, broken=True)
    watched.poll()
    watched.poll()
    assert watched.versions.counts().load_failures == 1
    monkeypatch.setattr(model_versions, "_RETRY_SECONDS", 0.0)
    watched.poll()
    assert watched.versions.counts().load_failures == 2


def test_the_next_lower_version_serves_at_the_start(watched: Watched) -> None:
    watched.add(1, 2)
    watched.add(3, 4, broken=True)
    assert watched.poll() == [2]
    assert watched.states() == {4: "END", 3: "END", 2: "AVAILABLE"}


def test_a_fault_while_loading_is_no_end(tmp_path: Path) -> None:
    def load(path: Path) -> Any:
        raise ZeroDivisionError("oh")

    versions = ModelVersions("m", tmp_path, load)
    (tmp_path / "1").mkdir()
    versions.poll()
    (status,) = versions.statuses()
    assert (status.status, status.message) == (Status.INTERNAL, "ZeroDivisionError: oh")


def test_nothing_to_serve_yet(watched: Watched) -> None:
    assert watched.poll() == []
    assert watched.said == [f"{watched.path}: no version folder; waiting for one"]
    with pytest.raises(RequestError, match=r"no version serves; .* holds no version folder yet\. Try again later") as e:
        watched.versions.held().__enter__()
    assert e.value.status == Status.UNAVAILABLE
    with pytest.raises(RequestError, match="found no version; expected folders") as e:
        watched.versions.statuses()
    assert e.value.status == Status.NOT_FOUND


def test_a_directory_that_can_not_be_read(watched: Watched, tmp_path: Path) -> None:
    watched.add(1)
    watched.poll()
    moved = tmp_path.rename(tmp_path.with_name("elsewhere"))
    assert watched.poll() == [1]
    assert watched.versions.counts().poll_failures == 1
    assert "can't be read" in watched.said[-1]
    moved.rename(tmp_path)


@pytest.mark.parametrize(
    ("policy", "serving"),
    [
        (Policy(), [4]),
        (Policy(newest=2), [2, 4]),
        (Policy(newest=None), [1, 2, 4]),
        (Policy(newest=None, only=frozenset({1, 3, 7})), [1]),
    ],
)
def test_policies(watched: Watched, policy: Policy, serving: list[int]) -> None:
    watched.add(1, 2, 4)
    watched.add(3, broken=True)
    watched.poll()
    watched.versions.configure(policy, {})
    assert watched.versions.serving() == serving


def test_labels(watched: Watched) -> None:
    watched.add(1, 2)
    watched.poll()
    with pytest.raises(RequestError, match="labels name versions that don't serve: 1; versions that serve: 2"):
        watched.versions.configure(Policy(), {"old": 1})
    watched.versions.configure(Policy(newest=2), {"old": 1})
    with watched.versions.held(label="old") as served:
        assert served.version == 1
    assert [found.version for found in watched.versions.statuses(label="old")] == [1]
    with pytest.raises(RequestError, match="found no label 'new'; the labels are: 'old'"):
        watched.versions.held(label="new").__enter__()


def test_folders(tmp_path: Path) -> None:
    for name in ("1", "02", "2", "-3", "4.5", ".6.tmp", "x7", "\u0668", "99999999999999999999"):
        (tmp_path / name).mkdir()
    (tmp_path / "9").touch()
    assert {version: path.name for version, path in folders(tmp_path).items()} == {1: "1", 2: "02"}


def test_many_versions_leave_a_short_history(watched: Watched) -> None:
    for version in range(1, 41):
        watched.add(version)
        watched.poll()
    assert len(watched.states()) == 17
    assert sum(not model.closed for model in watched.loaded) == 1


def test_the_thread_follows_and_stops(tmp_path: Path) -> None:
    events: dict[str, threading.Event] = {name: threading.Event() for name in ("serves", "freed")}

    def report(text: str) -> None:
        for name, event in events.items():
            if text == f"version 1: {name}":
                event.set()

    versions = ModelVersions("m", tmp_path, Model, poll_seconds=0.01, report=report)  # type: ignore[arg-type]
    (tmp_path / "1").mkdir()
    versions.start()
    assert events["serves"].wait(30)
    with versions.held():
        (tmp_path / "2").mkdir()
        _until(lambda: versions.serving() == [2])
        assert not events["freed"].is_set()
    assert events["freed"].wait(30)
    versions.close()
    assert versions.serving() == []


def _until(condition: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(3000):
        if condition():
            return
        waiting.wait(0.01)
    raise AssertionError("it did not happen within 30 s")
