"""What the commands show to people: progress, tables, errors; and the exit codes.

In a terminal that is a live bar, tables with borders and colours; elsewhere (logs, pipes, notebooks) plain lines.
"""

from __future__ import annotations

import collections
import contextlib
import contextvars
import datetime
import errno
import functools
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, Self, SupportsFloat, TextIO

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from easyrec_lite.errors import DriftAlarm, UserError

P = ParamSpec("P")

DONE, FAULT, WRONG_INPUT, ALARM, INTERRUPTED = 0, 1, 2, 3, 130

_BAR_SECONDS = 0.1  # between two drawings of the bar
_WINDOW_SECONDS = 10.0  # over which rates are measured

_report_dir: contextvars.ContextVar[Path | None] = contextvars.ContextVar("report_dir", default=None)


class Progress:
    """How far a loop over batches is: step, rows a second, loss, time left.

        with Progress(total_steps=10_000) as progress:
            progress.update(step, rows=4096, loss=loss)

    Args:
        total_steps: where it ends; None if nobody knows (a stream).
        first_step: steps that were done before (a resumed training).
        every_steps: without a terminal, a line is written each time this many steps are passed; 0 for none by steps.
        every_seconds: without a terminal, a line is written when this long passed since the last one.
        name: what is going on, such as "train".
        stream: standard error by default.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        total_steps: int | None = None,
        *,
        first_step: int = 0,
        every_steps: int = 0,
        every_seconds: float = 10.0,
        name: str = "train",
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total, self._every_steps, self._every_seconds, self._name = total_steps, every_steps, every_seconds, name
        self._stream, self._clock = stream or sys.stderr, clock
        self._step, self._rows = first_step, 0
        self._loss: SupportsFloat | None = None
        self._note = ""
        self._shown_step, self._shown_at = first_step, clock()
        # (time, step, rows) of the updates within the window, and one before.
        self._past = collections.deque([(self._shown_at, first_step, 0)])
        self._bar: RichProgress | None = None
        if _is_terminal(self._stream):
            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[text]}", markup=False),
                console=_console(self._stream),
                auto_refresh=False,
            )
            self._task = self._bar.add_task(name, total=total_steps, completed=first_step, text="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._step != self._shown_step:
            self._show(self._clock())
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, *, rows: int, loss: SupportsFloat | None = None, note: str = "") -> None:
        """Tell what was done.

        Args:
            step: steps done by now.
            rows: rows done since the last update.
            loss: of the last batch. It is read only when it is shown, so a tensor needs not be waited for.
            note: what else there is to say.
        """
        now = self._clock()
        self._step, self._rows = step, self._rows + rows
        self._loss = loss if loss is not None else self._loss
        self._note = note
        self._past.append((now, step, self._rows))
        while len(self._past) > 2 and self._past[1][0] < now - _WINDOW_SECONDS:
            self._past.popleft()
        if self._is_due(now):
            self._show(now)

    def log(self, message: str) -> None:
        """Write a line, above the bar if there is one."""
        if self._bar is not None:
            self._bar.console.print(message, markup=False, highlight=False, soft_wrap=True)
        else:
            print(message, file=self._stream, flush=True)

    def _is_due(self, now: float) -> bool:
        if self._bar is not None:
            return now - self._shown_at >= _BAR_SECONDS
        if self._every_steps and self._step // self._every_steps > self._shown_step // self._every_steps:
            return True
        return now - self._shown_at >= self._every_seconds

    def _show(self, now: float) -> None:
        self._shown_step, self._shown_at = self._step, now
        if self._bar is not None:
            self._bar.update(self._task, completed=self._step, text=self._text())
            self._bar.refresh()
        else:
            print(f"{self._name}: {self._text()}", file=self._stream, flush=True)

    def _text(self) -> str:
        (then, old_step, old_rows), (now, step, rows) = self._past[0], self._past[-1]
        seconds = now - then
        parts = [f"step {step:,}" + (f"/{self._total:,}" if self._total else "")]
        if seconds > 0:
            parts.append(f"{(rows - old_rows) / seconds:,.0f} rows/s")
        if self._loss is not None:
            parts.append(f"loss {float(self._loss):.5g}")
        if self._total and step > old_step and seconds > 0:
            left = (self._total - step) * seconds / (step - old_step)
            parts.append(f"ETA {datetime.timedelta(seconds=round(left))}")
        return "  ".join([*parts, *filter(None, [self._note])])


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], stream: TextIO | None = None) -> None:
    """Print a table, on standard output by default; columns of numbers are aligned to the right.

    Cells may be of any type: floats are shown to 6 digits, None as "-".
    """
    stream = stream or sys.stdout
    rows = [list(row) for row in rows]
    is_right = [
        any(row[i] is not None for row in rows) and all(_is_number(row[i]) for row in rows) for i in range(len(columns))
    ]
    cells = [[_cell(value) for value in row] for row in rows]
    if _is_terminal(stream):
        rich_table = Table(title=Text(title), title_justify="left")
        for column, right in zip(columns, is_right, strict=True):
            rich_table.add_column(Text(column), justify="right" if right else "left", overflow="fold")
        for row in cells:
            rich_table.add_row(*(Text(cell) for cell in row))  # Text: brackets in it are no markup
        _console(stream).print(rich_table)
        return
    lines = [list(columns), *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    print(title, file=stream)
    for line in [lines[0], ["-" * width for width in widths], *cells]:
        aligned = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, is_right, strict=True)
        )
        print("  ".join(aligned).rstrip(), file=stream)
    stream.flush()


def fail(error: BaseException | str, stream: TextIO | None = None) -> None:
    """Print an error for people, on standard error by default, without a traceback."""
    _labelled("error", "bold red", _message(error), stream)


def warn(message: str, stream: TextIO | None = None) -> None:
    """Print a warning, on standard error by default."""
    _labelled("warning", "bold yellow", message, stream)


def keep_reports_in(directory: str | os.PathLike[str]) -> None:
    """Have `main_guard` write the traceback of a fault to a file there; a command calls it with its model_dir."""
    _report_dir.set(Path(directory))


def main_guard(main: Callable[P, int | None]) -> Callable[P, int]:
    """Wrap the main function of a command: exceptions become messages and exit codes.

    Returns:
        A function returning `main`'s code, or 0 for None; 2 if the user's input is wrong (`UserError`, paths that are
        missing or forbidden, a full disk); 3 for a `DriftAlarm`; 130 on Ctrl-C; 1 for anything else, which is a
        fault of ours: the traceback goes to a file (`keep_reports_in`) or is printed.
    """

    @functools.wraps(main)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> int:
        _report_dir.set(None)
        try:
            return main(*args, **kwargs) or DONE
        except KeyboardInterrupt:
            fail("interrupted")
            return INTERRUPTED
        except DriftAlarm as alarm:
            fail(alarm)
            return ALARM
        except Exception as error:
            if _is_users(error):
                fail(error)
                return WRONG_INPUT
            _report(error)
            return FAULT

    return guarded


def _is_users(error: Exception) -> bool:
    if isinstance(error, UserError):
        return True
    of_paths = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
    return (isinstance(error, of_paths) and error.filename is not None) or (
        isinstance(error, OSError) and error.errno == errno.ENOSPC
    )


def _report(error: Exception) -> None:
    text = "".join(traceback.format_exception(error))
    fail(f"{type(error).__name__}: {error}")
    directory = _report_dir.get()
    if directory is not None:
        time_of_day = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S.%f")
        path = directory / f"fault-{time_of_day}.txt"
        with contextlib.suppress(OSError):
            directory.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            _print_error(f"This is a fault of easyrec_lite. Please report it with {path}", None)
            return
    _print_error(f"{text}This is a fault of easyrec_lite. Please report it with the lines above.", None)


def _message(error: BaseException | str) -> str:
    if isinstance(error, OSError) and error.strerror and not isinstance(error, UserError):
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return str(error) or type(error).__name__


def _labelled(label: str, style: str, message: str, stream: TextIO | None) -> None:
    stream = stream or sys.stderr
    if _is_terminal(stream):
        text = Text.assemble((f"{label}:", style), " ", message)
        _console(stream).print(text, soft_wrap=True)
    else:
        _print_error(f"{label}: {message}", stream)


def _print_error(message: str, stream: TextIO | None) -> None:
    print(message, file=stream or sys.stderr, flush=True)


def _console(stream: TextIO) -> Console:
    return Console(file=stream, highlight=False)


def _is_terminal(stream: TextIO) -> bool:
    # Not rich's own answer, which FORCE_COLOR turns to yes in the logs of CI.
    return stream.isatty() and not _console(stream).is_dumb_terminal


def _is_number(value: object) -> bool:
    if value is None or (isinstance(value, SupportsFloat) and not isinstance(value, bool)):
        return True
    try:
        float(str(value).replace(",", "") or 0)
    except ValueError:
        return False
    return True


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float) or (hasattr(value, "dtype") and hasattr(value, "__float__")):
        return f"{float(value):.6g}"  # type: ignore[arg-type]
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)
