"""A study that several processes work on, any of which may be killed at any instant.

It has exactly as many trials as it was asked for. They are put into the storage beforehand, waiting, and a process
takes one by moving it from WAITING to RUNNING. A trial whose process is gone goes back to WAITING as it is: its choices
stay, and its checkpoints are where they were. So no trial is lost, none counts twice, and none is run by two.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import os
import socket
import tempfile
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from easyrec_lite.errors import UserError
from easyrec_lite.tuning.choices import Value
from easyrec_lite.tuning.plugins import CONSTRAINTS, build_pruner, build_sampler
from easyrec_lite.tuning.space import Objective, Space

HEARTBEAT_SECONDS = 30
GRACE_SECONDS = 150
_SQLITE_TIMEOUT = 120.0
# User attributes of a trial.
EDITS, EVALUATION, COSTS_FOUND, STD_ERROR, ATTEMPTS = "edits", "evaluation", "costs", "std_error", "attempts"
_OWNER, _REASON, _DIGEST, _SAME_AS = "owner", "reason", "config", "same_as"
# And of a study.
_EXHAUSTED, _METRICS = "exhausted", "metrics"

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=ExperimentalWarning)


class SharedStudy:
    """A study in a database.

    Args:
        storage: URL of a database, as `sqlite:///study.db`; it is made if it is not there.
        name: of the study in it; likewise.
        space: what it searches.
        seed: of the sampler.
        parent: process that says what becomes of the trials of this one should it die; none by default.

    Attributes:
        study: Optuna's.

    Raises:
        UserError: the storage can't be opened, or the study searches something else.
    """

    def __init__(self, storage: str, name: str, space: Space, seed: int, parent: int | None = None) -> None:
        self.storage, self.name, self.space = storage, name, space
        self._lock_path = _lock_path(storage)
        self._owner = {
            "host": _host(),
            "process": _identity(os.getpid()),
            "parent": _identity(parent if parent is not None else os.getpid()),
        }
        with self._lock():
            self._storage = _open(storage)
            directions = [
                StudyDirection.MAXIMIZE if objective.maximize else StudyDirection.MINIMIZE
                for objective in space.objectives
            ]
            with contextlib.suppress(DuplicatedStudyError):
                optuna.create_study(storage=self._storage, study_name=name, directions=directions)
            distributions = {choice.name: choice.distribution for choice in space.choices}
            conditional = any(choice.when for choice in space.choices)
            self._sampler = build_sampler(space.message, distributions, seed, conditional)
            self.study = optuna.load_study(
                study_name=name,
                storage=self._storage,
                sampler=self._sampler,
                pruner=build_pruner(space.message),
            )
            self._check_same_search(directions)

    def _check_same_search(self, directions: Sequence[StudyDirection]) -> None:
        """What has been searched can be compared only with more of the same."""
        found = self.study.directions
        metrics = [objective.metric for objective in self.space.objectives]
        before = self.study.user_attrs.get(_METRICS, metrics)
        if found != directions or before != metrics:
            raise UserError(
                f"The study {self.name!r} in {self.storage} has the objectives "
                f"{_described(found, before)}; expected those of the space, "
                f"{_described(directions, metrics)}. Name another --study."
            )
        if _METRICS not in self.study.user_attrs:
            self.study.set_user_attr(_METRICS, metrics)
            self.study.set_metric_names(metrics)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Trials as they stand, all or those of these states."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def plan(self, total: int) -> None:
        """Puts trials to be done into the study until it has `total`, and takes back those of dead processes."""
        with self._lock():
            self.recover()
            for _ in range(len(self.trials()), total):
                self.study.add_trial(optuna.trial.create_trial(state=TrialState.WAITING))

    def recover(self) -> None:
        """Has the trials of processes that are gone wait again; the caller holds the lock."""
        running = self.trials(TrialState.RUNNING)
        here = _host()
        elsewhere = any(trial.user_attrs.get(_OWNER, {}).get("host") != here for trial in running)
        stale = set(self._storage._get_stale_trial_ids(self.study._study_id)) if elsewhere else set()
        for trial in running:
            owner = trial.user_attrs.get(_OWNER)
            if owner is None:
                # Killed between taking the trial and signing it; where all take the lock, nobody is in between now.
                since = trial.datetime_start or datetime.datetime.now()
                gone = self._is_file or (datetime.datetime.now() - since).total_seconds() > GRACE_SECONDS
            elif owner["host"] == here:
                # The trial of a worker that died under a parent is the parent's to judge.
                gone = not _is_alive(owner["process"]) and not _is_alive(owner["parent"])
            else:
                gone = trial._trial_id in stale
            if gone:
                with contextlib.suppress(UpdateFinishedTrialError):
                    self._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    def take(self, total: int) -> Trial | None:
        """A trial to be run by this process; None if the first `total` are all done or taken."""
        if self.study.user_attrs.get(_EXHAUSTED):
            return None
        with self._lock():
            self.recover()
            for waiting in self.trials(TrialState.WAITING):
                if waiting.number >= total:
                    continue  # of a larger total that somebody asked for
                with contextlib.suppress(UpdateFinishedTrialError):
                    if self._storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING):
                        self._storage.record_heartbeat(waiting._trial_id)
                        self._storage.set_trial_user_attr(waiting._trial_id, _OWNER, self._owner)
                        attempts = waiting.user_attrs.get(ATTEMPTS, 0) + 1
                        self._storage.set_trial_user_attr(waiting._trial_id, ATTEMPTS, attempts)
                        return Trial(self.study, waiting._trial_id)
        return None

    def choose(self, trial: Trial) -> dict[str, Value]:
        """The trial's choices; those of a trial that was begun before are as they were."""
        values: dict[str, Value] = {}
        for choice in self.space.choices:
            if all(condition.holds(values) for condition in choice.when):
                values[choice.name] = _suggest(trial, choice.name, choice.distribution)
        return values

    def twin(self, trial: Trial, digest: str) -> FrozenTrial | None:
        """A trial that ended with the very same config; `digest` is kept as this one's."""
        for other in self.trials(TrialState.COMPLETE, TrialState.PRUNED):
            if other.user_attrs.get(_DIGEST) == digest and other.number != trial.number:
                return other
        trial.set_user_attr(_DIGEST, digest)
        return None

    def complete(self, trial: Trial, values: Sequence[float]) -> None:
        """The trial is done."""
        self._tell(trial, TrialState.COMPLETE, values)

    def repeat(self, trial: Trial, other: FrozenTrial) -> None:
        """The trial ends as one that had the same config."""
        trial.set_user_attr(_SAME_AS, other.number)
        for name in (EVALUATION, COSTS_FOUND, STD_ERROR, CONSTRAINTS, _REASON):
            if name in other.user_attrs:
                trial.set_user_attr(name, other.user_attrs[name])
        if other.state is TrialState.PRUNED:
            for step, value in other.intermediate_values.items():
                trial.report(value, step)
        self._tell(trial, other.state, other.values if other.state is TrialState.COMPLETE else None)

    def prune(self, trial: Trial, reason: str) -> None:
        """The trial was ended early, or never begun."""
        trial.set_user_attr(_REASON, reason)
        self._tell(trial, TrialState.PRUNED)

    def fail(self, trial_id: int, reason: str) -> None:
        """The trial failed; the study goes on."""
        self._storage.set_trial_user_attr(trial_id, _REASON, reason)
        with contextlib.suppress(UpdateFinishedTrialError):
            self._storage.set_trial_state_values(trial_id, TrialState.FAIL)

    def fail_of(self, process: int, reason: str) -> int:
        """The trials of a process of ours that died failed; returns how many there were."""
        count = 0
        with self._lock():
            for trial in self.trials(TrialState.RUNNING):
                owner = trial.user_attrs.get(_OWNER) or {}
                if owner.get("host") == _host() and owner["process"]["pid"] == process:
                    self.fail(trial._trial_id, reason)
                    count += 1
        return count

    def release(self, processes: Iterable[int]) -> None:
        """The trials of processes of ours that were ended on purpose wait again."""
        ended = set(processes)
        with self._lock():
            for trial in self.trials(TrialState.RUNNING):
                owner = trial.user_attrs.get(_OWNER) or {}
                if owner.get("host") == _host() and owner["process"]["pid"] in ended:
                    with contextlib.suppress(UpdateFinishedTrialError):
                        self._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    def _tell(self, trial: Trial, state: TrialState, values: Sequence[float] | None = None) -> None:
        self.study.tell(trial, list(values) if values is not None else None, state=state)
        if self._sampler.exhausted:
            self.study.set_user_attr(_EXHAUSTED, True)

    def is_over(self, total: int) -> bool:
        """Whether nothing is left to be done."""
        if self.study.user_attrs.get(_EXHAUSTED):
            return not self.trials(TrialState.RUNNING)
        done = [trial for trial in self.trials() if trial.number < total and trial.state.is_finished()]
        return len(done) >= total

    @property
    def is_exhausted(self) -> bool:
        """Whether the sampler has tried everything there is."""
        return bool(self.study.user_attrs.get(_EXHAUSTED))

    @contextlib.contextmanager
    def alive(self, trial: Trial) -> Iterator[None]:
        """Tells other machines that the trial is being worked on."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(HEARTBEAT_SECONDS):
                # A database that is away for a moment is no reason to lose a trial.
                with contextlib.suppress(optuna.exceptions.OptunaError, SQLAlchemyError):
                    self._storage.record_heartbeat(trial._trial_id)

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    @property
    def _is_file(self) -> bool:
        return self.storage.startswith("sqlite")

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """One process of this machine at a time. SQLite's transactions alone would let two take the same trial."""
        self._lock_path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._lock_path, "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def best_trials(trials: Sequence[FrozenTrial], objectives: Sequence[Objective]) -> list[FrozenTrial]:
    """The best trial within the limits; with several objectives those that no other one beats in all of them.

    Of equal trials the first; the best by the first objective comes first.
    """
    done = [trial for trial in trials if trial.state is TrialState.COMPLETE and is_feasible(trial)]
    done = [trial for trial in done if _SAME_AS not in trial.user_attrs]
    signs = [1 if objective.maximize else -1 for objective in objectives]
    scores = {trial.number: [s * v for s, v in zip(signs, trial.values, strict=True)] for trial in done}

    def beaten(trial: FrozenTrial) -> bool:
        mine = scores[trial.number]
        return any(other != mine and all(o >= m for o, m in zip(other, mine, strict=True)) for other in scores.values())

    ranked = sorted(done, key=lambda trial: (-scores[trial.number][0], trial.number))
    front = [trial for trial in ranked if not beaten(trial)]
    return front[:1] if len(objectives) == 1 else front


def is_feasible(trial: FrozenTrial) -> bool:
    """Whether the trial is within the limits."""
    return all(excess <= 0 for excess in trial.user_attrs.get(CONSTRAINTS, ()))


def reason_of(trial: FrozenTrial) -> str:
    """Why a trial failed or was pruned, or which one it repeats."""
    same = trial.user_attrs.get(_SAME_AS)
    reason = str(trial.user_attrs.get(_REASON, ""))
    return ", ".join(filter(None, [f"as trial {same}" if same is not None else "", reason]))


def edits_of(trial: FrozenTrial) -> list[str]:
    """The overrides `path=value` of a trial."""
    return list(trial.user_attrs.get(EDITS, ()))


def _described(directions: Sequence[StudyDirection], metrics: Sequence[str]) -> str:
    return ", ".join(f"{d.name.lower()} {metric}" for d, metric in zip(directions, metrics, strict=False))


def _open(url: str) -> RDBStorage:
    try:
        parsed = make_url(url)
        arguments: dict[str, Any] = {"pool_pre_ping": True}
        if parsed.get_backend_name() == "sqlite":
            if not parsed.database or parsed.database == ":memory:":
                raise UserError(f"--storage: found {url!r}, which is in memory; expected a file, as sqlite:///study.db")
            Path(parsed.database).absolute().parent.mkdir(parents=True, exist_ok=True)
            arguments = {"connect_args": {"timeout": _SQLITE_TIMEOUT}}
        return RDBStorage(
            url, engine_kwargs=arguments, heartbeat_interval=HEARTBEAT_SECONDS, grace_period=GRACE_SECONDS
        )
    except (ArgumentError, ImportError, SQLAlchemyError, RuntimeError) as error:
        text = str(error).splitlines()[0]
        raise UserError(
            f"--storage: found {_without_password(url)!r} ({text}); expected the URL of a database, as sqlite:///study.db"
        ) from None


def _without_password(url: str) -> str:
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return url if "@" not in url else "..." + url[url.rindex("@") :]


def _lock_path(url: str) -> Path:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            return Path(f"{parsed.database}.lock").absolute()
    except ArgumentError:
        pass  # told when the storage is opened
    return Path(tempfile.gettempdir()) / f"easyrec_lite-{hashlib.sha256(url.encode()).hexdigest()[:16]}.lock"


def _suggest(trial: Trial, name: str, distribution: BaseDistribution) -> Value:
    match distribution:
        case IntDistribution():
            return trial.suggest_int(
                name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
            )
        case FloatDistribution():
            return trial.suggest_float(
                name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
            )
        case CategoricalDistribution():
            chosen = trial.suggest_categorical(name, distribution.choices)
            assert isinstance(chosen, str | bool)
            return chosen
    raise TypeError(f"Expected a distribution of Optuna's. Received: {distribution!r}")


def _host() -> str:
    """Where a process number means one process: this boot of this machine, in this container."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _identity(pid: int) -> dict[str, Any]:
    """A process, told from a later one of the same number by when it began."""
    return {"pid": pid, "began": _began(pid)}


def _began(pid: int) -> str:
    """Of a process that is there; '' where the system doesn't say, or if the process has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # The name in brackets may hold anything; the fields after it are fixed: state is the first, start time the 20th.
    fields = stat[stat.rindex(")") + 2 :].split()
    return "" if fields[0] == "Z" else fields[19]


def _is_alive(process: Mapping[str, Any]) -> bool:
    try:
        os.kill(process["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return bool(_began(process["pid"]) == process["began"])
