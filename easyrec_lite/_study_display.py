"""What a person at the terminal sees of a study while it runs."""

from __future__ import annotations

import sys
from typing import TextIO

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from easyrec_lite.tuning import SharedStudy, best_trials, reason_of, text_of
from easyrec_lite.tuning.results import seconds_of, values_text

_ROWS = 12
_COLOURS = {
    TrialState.COMPLETE: "green",
    TrialState.PRUNED: "yellow",
    TrialState.FAIL: "red",
    TrialState.RUNNING: "cyan",
}


class StudyDisplay:
    """A table of the newest trials that is kept up to date; without a terminal, a line for each trial that ended.

    Args:
        study: to be shown.
        total: trials that it is to have.
        stream: standard error by default.
    """

    def __init__(self, study: SharedStudy, total: int, stream: TextIO | None = None) -> None:
        self._study, self._total, self._stream = study, total, stream or sys.stderr
        self._told = {trial.number for trial in study.trials() if trial.state.is_finished()}
        self._live: Live | None = None
        console = Console(file=self._stream, highlight=False)
        if self._stream.isatty() and not console.is_dumb_terminal:
            self._live = Live(console=console, auto_refresh=False)
            self._live.start()

    def update(self) -> None:
        """Shows the trials as they stand."""
        trials = self._study.trials()
        if self._live is not None:
            self._live.update(self._table(trials), refresh=True)
            return
        for trial in sorted(trials, key=lambda trial: (trial.datetime_complete is None, str(trial.datetime_complete))):
            if trial.state.is_finished() and trial.number not in self._told:
                self._told.add(trial.number)
                print(self._line(trial, trials), file=self._stream, flush=True)

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _line(self, trial: FrozenTrial, trials: list[FrozenTrial]) -> str:
        parts = [f"trial {trial.number}", trial.state.name.lower()]
        parts += [self._result(trial)] if self._result(trial) else []
        parts += [f"{seconds_of(trial) or 0:.1f} s", _choices(trial)]
        best = best_trials(trials, self._study.space.objectives)
        done = f"{len(self._told)}/{self._total}"
        return f"{done}: {'  '.join(parts)}" + (f"  (best: trial {best[0].number})" if best else "")

    def _result(self, trial: FrozenTrial) -> str:
        space = self._study.space
        if trial.state is TrialState.COMPLETE:
            return ", ".join(filter(None, [values_text(trial, space), reason_of(trial)]))
        if trial.state is TrialState.RUNNING and trial.last_step is not None:
            value = trial.intermediate_values[trial.last_step]
            return f"{space.objectives[0].metric} {value:.6g} at evaluation {trial.last_step + 1}"
        return reason_of(trial)

    def _table(self, trials: list[FrozenTrial]) -> Group:
        counts = {state: sum(trial.state is state for trial in trials) for state in TrialState}
        ended = sum(count for state, count in counts.items() if state.is_finished())
        head = f"Study {self._study.name}: {ended}/{self._total} trials, " + ", ".join(
            f"{counts[state]} {state.name.lower()}" for state in _COLOURS if counts[state]
        )
        best = best_trials(trials, self._study.space.objectives)
        grid = Table()
        for column in ("trial", "state", "result", "s", "choices"):
            grid.add_column(column, justify="right" if column in ("trial", "s") else "left", overflow="fold")
        begun = [trial for trial in trials if trial.state is not TrialState.WAITING]
        newest = begun[-_ROWS:]
        shown = [trial for trial in best[:3] if trial not in newest] + newest
        for trial in shown:
            is_best = any(trial.number == other.number for other in best)
            grid.add_row(
                f"{trial.number}",
                Text(trial.state.name.lower(), _COLOURS.get(trial.state, "")),
                Text(self._result(trial), "bold" if is_best else ""),
                f"{seconds_of(trial) or 0:.0f}",
                Text(_choices(trial)),
            )
        return Group(Text(head), grid)


def _choices(trial: FrozenTrial) -> str:
    return " ".join(
        f"{name.rsplit('.', 1)[-1] if '[' in name else name}={text_of(value)}" for name, value in trial.params.items()
    )
