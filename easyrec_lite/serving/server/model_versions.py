"""Which versions of a model serve: watches a directory, loads what comes, lets go of what is replaced.

    <model_dir>/<number>/     appears (by rename)   ──▶ loaded and warmed up beside the one that serves ──▶ swapped in
                              renamed away          ──▶ the newest of the rest is loaded and swapped in
                              fails to load         ──▶ reported; what served goes on serving

A request holds the version that it began with until it is answered; a version is freed when nobody holds it.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from easyrec_lite.serving.failures import LoadError, RequestError, Status, not_found
from easyrec_lite.serving.loaded import LoadedModel

START, LOADING, AVAILABLE, UNLOADING, END = "START", "LOADING", "AVAILABLE", "UNLOADING", "END"

_REMEMBERED = 16  # versions that ended, in the status
_CANCEL_SECONDS = 5.0  # that requests have to end when they are cancelled
_RETRY_SECONDS = 60.0  # until a version that failed, and that nobody touched, is tried again


@dataclass(frozen=True)
class VersionStatus:
    """What became of a version: a state of TF Serving's, and a status that is not OK if it failed."""

    version: int
    state: str
    status: Status = Status.OK
    message: str = ""


@dataclass(frozen=True)
class Policy:
    """Which of the versions that are there serve.

    Attributes:
        newest: how many of those that can be loaded, from the highest down; None for all.
        only: the numbers to choose from; None for all.
    """

    newest: int | None = 1
    only: frozenset[int] | None = None


@dataclass(frozen=True)
class Counts:
    """What happened since the start.

    Attributes:
        loads: versions that were loaded.
        load_failures: attempts that failed.
        swaps: times that another version became the one that answers by default.
        poll_failures: times that the directory could not be read.
        load_seconds: how long the last load took, warm-up included.
    """

    loads: int = 0
    load_failures: int = 0
    swaps: int = 0
    poll_failures: int = 0
    load_seconds: float = 0.0


@dataclass
class Served:
    """A loaded version and how many requests hold it."""

    version: int
    model: LoadedModel
    users: int = 0


@dataclass
class _Failure:
    identity: object
    at: float = field(default_factory=time.monotonic)


class ModelVersions:
    """The versions of one model, followed by a thread of its own.

    Args:
        name: of the model, as requests say it.
        base_path: parent of the version folders.
        load: loads and warms up a version folder, or raises LoadError or RequestError.
        policy: which versions serve.
        labels: versions by label.
        poll_seconds: between two looks at the directory.
        report: is told, in a sentence, what happens.
    """

    def __init__(
        self,
        name: str,
        base_path: Path,
        load: Callable[[Path], LoadedModel],
        *,
        policy: Policy = Policy(),
        labels: Mapping[str, int] | None = None,
        poll_seconds: float = 1.0,
        report: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.name, self.base_path = name, base_path
        self._load, self._policy, self._labels = load, policy, dict(labels or {})
        self._poll_seconds, self._report = poll_seconds, report
        self._condition = threading.Condition()
        self._polling = threading.Lock()
        self._serving: dict[int, Served] = {}
        self._retired: list[Served] = []
        self._statuses: dict[int, VersionStatus] = {}
        self._failures: dict[int, _Failure] = {}
        self._counts = Counts()
        self._said = ""
        self._stopping = False
        self._thread = threading.Thread(target=self._follow, name="versions", daemon=True)

    # ---- for requests

    @contextlib.contextmanager
    def held(self, version: int | None = None, label: str = "") -> Iterator[Served]:
        """A version, loaded and not freed for as long as it is held.

        Args:
            version: its number; the newest that serves if None.
            label: says the number in its stead, if not empty.

        Raises:
            RequestError: it does not serve, or no version does.
        """
        with self._condition:
            served = self._find(version, label)
            served.users += 1
        try:
            yield served
        finally:
            with self._condition:
                served.users -= 1
                if not served.users:
                    self._condition.notify_all()

    def _find(self, version: int | None, label: str) -> Served:
        if not self._serving:
            raise RequestError(
                Status.UNAVAILABLE, f"Model {self.name!r}: no version serves; {self._why_none()}. Try again later."
            )
        known = ", ".join(map(str, sorted(self._serving)))
        if label:
            if label not in self._labels:
                labels = ", ".join(map(repr, sorted(self._labels))) or "none"
                raise not_found(f"Model {self.name!r}: found no label {label!r}; the labels are: {labels}.")
            version = self._labels[label]
        if version is None:
            version = max(self._serving)
        if version not in self._serving:
            raise not_found(f"Model {self.name!r}: version {version} does not serve; versions that serve: {known}.")
        return self._serving[version]

    def _why_none(self) -> str:
        if self._statuses:
            last = next(reversed(self._statuses.values()))
            return f"version {last.version} is in state {last.state}" + (f" ({last.message})" if last.message else "")
        return f"{self.base_path} holds no version folder yet"

    # ---- for those who watch

    def statuses(self, version: int | None = None, label: str = "") -> list[VersionStatus]:
        """Of all versions, newest first; of one if it is named.

        Raises:
            RequestError: nothing is known of it, or of any version.
        """
        with self._condition:
            if label:
                version = self._find(None, label).version
            found = [status for status in self._statuses.values() if version in (None, status.version)]
        if not found:
            what = "version" if version is None else f"version {version}"
            raise not_found(
                f"Model {self.name!r}: found no {what}; expected folders with numbers for names in {self.base_path}."
            )
        return sorted(found, key=lambda status: -status.version)

    def counts(self) -> Counts:
        """What happened so far."""
        with self._condition:
            return self._counts

    def serving(self) -> list[int]:
        """The numbers of the versions that serve, ascending; the last one answers by default."""
        with self._condition:
            return sorted(self._serving)

    # ---- for who runs the server

    def start(self) -> None:
        """Begins to follow the directory; returns at once."""
        self._thread.start()

    def configure(self, policy: Policy, labels: Mapping[str, int]) -> None:
        """Another policy and other labels; returns when what they ask for is loaded.

        Raises:
            RequestError: a label is for a version that does not serve then; the labels stay as they were.
        """
        with self._condition:
            self._policy = policy
        self.poll()
        with self._condition:
            if absent := sorted(set(labels.values()) - set(self._serving)):
                raise RequestError(
                    Status.FAILED_PRECONDITION,
                    f"Model {self.name!r}: labels name versions that don't serve: {', '.join(map(str, absent))};"
                    f" versions that serve: {', '.join(map(str, sorted(self._serving))) or 'none'}.",
                )
            self._labels = dict(labels)

    def close(self, timeout: float = 10.0) -> None:
        """Lets go of all versions once their requests are answered; `timeout` seconds later it ends those."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        with self._condition:
            self._retired.extend(self._serving.values())
            self._serving = {}
            if not self._condition.wait_for(self._nobody_left, timeout):
                for served in self._retired:
                    served.model.cancel()
                self._condition.wait_for(self._nobody_left, _CANCEL_SECONDS)
        self._free()

    def _nobody_left(self) -> bool:
        return not any(served.users for served in self._retired)

    # ---- the thread

    def _follow(self) -> None:
        next_poll = 0.0
        while True:
            with self._condition:
                self._condition.wait_for(
                    lambda: self._stopping or any(not served.users for served in self._retired),
                    max(0.0, next_poll - time.monotonic()),
                )
                if self._stopping:
                    return
            self._free()
            if time.monotonic() >= next_poll:
                self.poll()
                next_poll = time.monotonic() + self._poll_seconds

    def poll(self) -> None:
        """Looks at the directory once, and does what follows from it."""
        with self._polling:
            try:
                found = folders(self.base_path)
            except OSError as error:
                self._count(poll_failures=1)
                self._say(f"{self.base_path}: can't be read ({error.strerror}); what serves goes on serving")
                return
            with self._condition:
                policy = self._policy
                self._failures = {version: f for version, f in self._failures.items() if version in found}
            chosen = self._choose(found, policy)
            if not chosen:
                # Somebody may be about to put another one in its place; nothing is worse than no version at all.
                kept = f"version {max(self._serving)} goes on serving" if self._serving else "waiting for one"
                broken = "none that can be served" if found else "no version folder"
                self._say(f"{self.base_path}: {broken}; {kept}")
                return
            self._swap(chosen)

    def _choose(self, found: Mapping[int, Path], policy: Policy) -> dict[int, Served]:
        """The versions that are to serve, loaded: the newest that can be, as many as wanted."""
        wanted = found.keys() if policy.only is None else policy.only & found.keys()
        candidates = sorted(wanted, reverse=True)
        loaded = (self._loaded(version, found[version]) for version in candidates)
        chosen = itertools.islice((served for served in loaded if served is not None), policy.newest)
        return {served.version: served for served in chosen}

    def _loaded(self, version: int, path: Path) -> Served | None:
        if version in self._serving:
            return self._serving[version]
        identity, failure = _identity(path), self._failures.get(version)
        if failure and failure.identity == identity and time.monotonic() - failure.at < _RETRY_SECONDS:
            return None
        self._set(VersionStatus(version, LOADING))
        start = time.monotonic()
        try:
            model = self._load(path)
        except Exception as error:
            self._failures[version] = _Failure(identity)
            self._count(load_failures=1)
            status = error.status if isinstance(error, RequestError) else Status.INVALID_ARGUMENT
            known = isinstance(error, RequestError | LoadError)
            message = str(error) if known else f"{type(error).__name__}: {error}"
            self._set(VersionStatus(version, END, status if known else Status.INTERNAL, message))
            self._report(f"version {version}: can't be loaded; {message}")
            return None
        seconds = time.monotonic() - start
        self._failures.pop(version, None)
        self._count(loads=1, load_seconds=seconds)
        self._report(f"version {version}: loaded in {seconds:.2f} s")
        return Served(version, model)

    def _swap(self, chosen: dict[int, Served]) -> None:
        with self._condition:
            before = max(self._serving, default=None)
            gone = [served for version, served in self._serving.items() if version not in chosen]
            self._serving = chosen
            self._retired += gone
            for version in chosen:
                self._set(VersionStatus(version, AVAILABLE))
            for served in gone:
                self._set(VersionStatus(served.version, UNLOADING))
        self._said = ""
        if max(chosen) != before:
            self._count(swaps=1)
            self._report(f"version {max(chosen)}: serves" + (f" in place of {before}" if before is not None else ""))
        self._free()

    def _free(self) -> None:
        with self._condition:
            free = [served for served in self._retired if not served.users]
            self._retired = [served for served in self._retired if served.users]
        for served in free:
            served.model.close()
            with self._condition:
                if served.version not in self._serving:
                    self._set(VersionStatus(served.version, END))
            self._report(f"version {served.version}: freed")

    def _set(self, status: VersionStatus) -> None:
        with self._condition:
            if self._statuses.get(status.version) == status:
                return
            self._statuses.pop(status.version, None)
            self._statuses[status.version] = status
            ended = [version for version, known in self._statuses.items() if known.state == END]
            for version in ended[:-_REMEMBERED]:
                del self._statuses[version]

    def _count(self, *, load_seconds: float | None = None, **more: int) -> None:
        with self._condition:
            now = {name: getattr(self._counts, name) + number for name, number in more.items()}
            self._counts = replace(self._counts, **now)
            if load_seconds is not None:
                self._counts = replace(self._counts, load_seconds=load_seconds)

    def _say(self, text: str) -> None:
        """Reports a state, once as long as it lasts."""
        if text != self._said:
            self._said = text
            self._report(text)


def folders(base_path: Path) -> dict[int, Path]:
    """The version folders in a directory by number: those whose names are numbers, as TF Serving takes them."""
    result: dict[int, Path] = {}
    for path in sorted(base_path.iterdir()):
        if path.name.isascii() and path.name.isdecimal() and int(path.name) < 2**63 and path.is_dir():
            result.setdefault(int(path.name), path)
    return result


def _identity(path: Path) -> Sequence[tuple[int, int]]:
    """Changes when something in the folder was replaced."""
    result = []
    for part in (path, path / "saved_model.pb", path / "variables"):
        try:
            found = part.stat()
            result.append((found.st_ino, found.st_mtime_ns))
        except OSError:
            result.append((0, 0))
    return result
