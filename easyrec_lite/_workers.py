"""The processes of a search; this module is light, for them to begin with their log before TensorFlow speaks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from easyrec_lite.tuning import SharedStudy

LOGS_DIR = "logs"
# Workers that end one after the other without having begun a trial: the next would, too.
_BARREN_WORKERS = 3
_PARENT_SECONDS = 0.5


@dataclass(frozen=True)
class Search:
    """What the processes of a search need to know.

    Attributes:
        config: the base config's file.
        overrides: changes of it that hold for all trials.
        space: the space's file.
        storage: URL of the database.
        study: name of the study in it.
        trials: how many it is to have.
        seed: of the sampler.
        directory: where trials and results go.
        end: time (seconds since 1970) after which no trial is begun; None for no end.
        imports: modules of the user's.
    """

    config: str
    overrides: tuple[str, ...]
    space: str
    storage: str
    study: str
    trials: int
    seed: int
    directory: Path
    end: float | None = None
    imports: tuple[str, ...] = ()


class Workers:
    """The processes of a search.

    A process keeps TensorFlow between its trials. One that dies takes only its trial with it.

    Args:
        search: what they do.
        study: of it.
        count: how many there are to be.
    """

    def __init__(self, search: Search, study: SharedStudy, count: int) -> None:
        self._search, self._study, self._count = search, study, count
        self._processes: list[BaseProcess] = []
        self._barren = 0

    def start(self) -> None:
        """Starts them."""
        for _ in range(self._count):
            self._processes.append(self._new())

    def watch(self) -> bool:
        """Replaces those that died, whose trials failed; False once all have done their work.

        Raises:
            RuntimeError: they die before they begin a trial.
        """
        for index, process in enumerate(self._processes):
            if process.exitcode in (None, 0) or process.pid is None:
                continue
            process.join()
            self._barren = 0 if self._study.fail_of(process.pid, _reason(process)) else self._barren + 1
            if self._barren >= _BARREN_WORKERS:
                raise RuntimeError(f"a worker ended before it began a trial: {_reason(process)}\n{self._log(process)}")
            self._processes[index] = self._new()
        return any(process.exitcode is None for process in self._processes)

    def stop(self) -> None:
        """Ends those that still run; their trials can be gone on with."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        self._study.release(process.pid for process in self._processes if process.pid is not None)

    def _new(self) -> BaseProcess:
        threads = max(1, (os.cpu_count() or 1) // self._count) if self._count > 1 else 0
        process = multiprocessing.get_context("spawn").Process(
            target=_enter, args=(self._search, os.getpid(), threads), name="trials"
        )
        process.start()
        return process

    def _log(self, process: BaseProcess) -> str:
        path = _log_path(self._search, process.pid)
        return path.read_text(encoding="utf-8", errors="replace")[-3000:] if path.exists() else ""


def _enter(search: Search, parent: int, threads: int) -> None:
    """The main function of a worker."""
    log = _log_path(search, os.getpid())
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab", buffering=0) as file:  # the terminal shows the table of trials
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes; the parent ends this one
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()

    from easyrec_lite._trials import work

    work(search, parent, threads)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_SECONDS)
    os._exit(1)


def _log_path(search: Search, process: int | None) -> Path:
    return search.directory / LOGS_DIR / f"worker-{process}.log"


def _reason(process: BaseProcess) -> str:
    code = process.exitcode or 0
    if code == -signal.SIGKILL:
        return "its process was killed by SIGKILL, as the system does when memory runs out"
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended with code {code}"
