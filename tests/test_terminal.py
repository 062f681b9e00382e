"""What people see, in a terminal and elsewhere, and the exit codes."""

from __future__ import annotations

import errno
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from easyrec_lite import terminal
from easyrec_lite.checkpoints import CheckpointError
from easyrec_lite.errors import DriftAlarm, UserError
from easyrec_lite.terminal import Progress, fail, keep_reports_in, main_guard, table, warn


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("FORCE_COLOR", raising=False)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Loss:
    """A loss that counts how often it is waited for."""

    reads = 0

    def __float__(self) -> float:
        self.reads += 1
        return 0.693147


def test_lines_every_so_many_steps() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(100, every_steps=10, every_seconds=1e9, stream=stream, clock=clock) as progress:
        for step in (4, 8, 12, 16, 20, 24):
            clock.now += 2
            progress.update(step, rows=400, loss=step / 10)
    assert stream.getvalue().splitlines() == [
        "train: step 12/100  200 rows/s  loss 1.2  ETA 0:00:44",
        "train: step 20/100  200 rows/s  loss 2  ETA 0:00:40",
        "train: step 24/100  200 rows/s  loss 2.4  ETA 0:00:38",
    ]


def test_lines_every_so_many_seconds_wait_for_the_loss_only_then() -> None:
    stream, clock, loss = io.StringIO(), Clock(), Loss()
    with Progress(every_seconds=5, name="stream", stream=stream, clock=clock) as progress:
        for step in range(1, 11):
            clock.now += 1
            progress.update(step, rows=10, loss=loss)
        progress.log("checkpoint written")
    assert stream.getvalue().splitlines() == [
        "stream: step 5  10 rows/s  loss 0.69315",
        "stream: step 10  10 rows/s  loss 0.69315",
        "checkpoint written",
    ]
    assert loss.reads == 2


def test_rates_are_those_of_the_last_seconds_and_of_this_run() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(2000, first_step=1000, every_steps=1, stream=stream, clock=clock) as progress:
        for step in range(1001, 1031):
            clock.now += 1
            progress.update(step, rows=100 if step <= 1015 else 300)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "train: step 1,001/2,000  100 rows/s  ETA 0:16:39"
    assert lines[-1] == "train: step 1,030/2,000  300 rows/s  ETA 0:16:10"


def test_nothing_done_shows_nothing() -> None:
    stream = io.StringIO()
    with Progress(10, stream=stream):
        pass
    assert stream.getvalue() == ""


@pytest.mark.parametrize("total", [20, None])
def test_the_bar_of_a_terminal(total: int | None) -> None:
    stream, clock, loss = Terminal(), Clock(), Loss()
    with Progress(total, stream=stream, clock=clock) as progress:
        for step in range(1, 21):
            clock.now += 0.02
            progress.update(step, rows=10, loss=loss)
        progress.log("features[user_id].x kept")
    shown = stream.getvalue()
    assert re.search(r"step 20(/20)?  500 rows/s  loss 0.69315", shown)
    assert "features[user_id].x kept" in shown
    assert loss.reads <= 5  # drawn at most ten times a second
    assert "\x1b[?25h" in shown  # the cursor is back


ROWS = [["auc", 0.7512345678, 1200], ["features[a].x", None, np.int64(7)]]


def test_plain_table() -> None:
    stream = io.StringIO()
    table("Results", ["metric", "value", "rows"], ROWS, stream)
    assert stream.getvalue().splitlines() == [
        "Results",
        "metric            value   rows",
        "-------------  --------  -----",
        "auc            0.751235  1,200",
        "features[a].x         -      7",
    ]


def test_tables_without_rows_and_with_numbers_as_text() -> None:
    stream = io.StringIO()
    table("None", ["step", "MB"], [], stream)
    table("Two", ["step", "MB", "on"], [["1000", "1,024.5", True], ["20", "", False]], stream)
    assert stream.getvalue().splitlines() == [
        "None",
        "step  MB",
        "----  --",
        "Two",
        "step       MB  on",
        "----  -------  -----",
        "1000  1,024.5  True",
        "  20           False",
    ]


def test_table_of_a_terminal_keeps_brackets() -> None:
    stream = Terminal()
    table("Results [bold]", ["metric", "value", "rows"], ROWS, stream)
    shown = stream.getvalue()
    assert "features[a].x" in shown
    assert "Results [bold]" in shown
    assert "━" in shown


def test_errors_and_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    fail(UserError("a.config:3: features[a]: wrong"))
    warn("no seed")
    assert capsys.readouterr().err == "error: a.config:3: features[a]: wrong\nwarning: no seed\n"
    stream = Terminal()
    fail(UserError("features[a] " + "x" * 120), stream)
    assert re.search(r"error:.* features\[a\] x{120}\n", stream.getvalue())  # not wrapped: people copy paths
    fail(KeyError(), out := io.StringIO())
    assert out.getvalue() == "error: KeyError\n"


def raising(error: BaseException, setup: Callable[[], None] = lambda: None) -> Callable[[], int]:
    @main_guard
    def main() -> int | None:
        setup()
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("wrong"), 2, "wrong"),
        (CheckpointError("damaged"), 2, "damaged"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x.csv"), 2, "x.csv: No such file or directory"),
        (PermissionError(errno.EACCES, "Permission denied", "x.csv"), 2, "x.csv: Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "No space left on device"),
        (DriftAlarm("label rate"), 3, "label rate"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_exit_codes(capsys: pytest.CaptureFixture[str], error: BaseException, code: int, message: str) -> None:
    assert raising(error)() == code
    assert capsys.readouterr().err == f"error: {message}\n"


def test_done() -> None:
    @main_guard
    def main(code: int | None) -> int | None:
        """Do it."""
        return code

    assert (main(None), main(0), main(2)) == (0, 0, 2)
    assert main.__doc__ == "Do it."


def test_system_exit_passes() -> None:
    with pytest.raises(SystemExit):
        raising(SystemExit(2))()


@pytest.mark.parametrize("error", [RuntimeError("bug"), FileNotFoundError("no path in it"), OSError(errno.EIO, "I/O")])
def test_a_fault_of_ours_shows_its_traceback(capsys: pytest.CaptureFixture[str], error: Exception) -> None:
    assert raising(error)() == 1
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: {type(error).__name__}: {error}\n")
    assert "Traceback" in shown
    assert "raise error" in shown
    assert shown.endswith("Please report it with the lines above.\n")


def test_a_fault_of_ours_is_kept_in_the_model_dir(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert raising(RuntimeError("bug"), lambda: keep_reports_in(tmp_path / "model"))() == 1
    (report,) = (tmp_path / "model").iterdir()
    assert "raise error" in report.read_text()
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert shown.endswith(f"Please report it with {report}\n")
    # The next command does not write there, and a directory that cannot be made is no second fault.
    assert raising(RuntimeError("bug"))() == 1
    assert raising(RuntimeError("bug"), lambda: keep_reports_in(report))() == 1
    assert capsys.readouterr().err.count("Traceback") == 2
    assert [path.name for path in (tmp_path / "model").iterdir()] == [report.name]


def test_the_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    fail("wrong", stream)
    assert stream.getvalue() == "error: wrong\n"
    assert terminal.DONE == 0
