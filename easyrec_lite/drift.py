"""Draws what the drift monitor of a run saw: `python -m easyrec_lite.drift MODEL_DIR [--out report.html]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from easyrec_lite._drift_report import DriftReport
from easyrec_lite.checkpoints import atomic_write_text
from easyrec_lite.terminal import main_guard, table


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    arguments = argparse.ArgumentParser(
        prog="python -m easyrec_lite.drift",
        description="Draws windows, checks, alarms and published versions of a run as a page that needs no network.",
        allow_abbrev=False,
    )
    arguments.add_argument("model_dir", type=Path, metavar="MODEL_DIR")
    arguments.add_argument("--out", type=Path, metavar="FILE", help="the page; MODEL_DIR/drift.html by default")
    arguments.add_argument("--windows", type=int, default=500, metavar="N", help="draw the newest (default: 500)")
    options = arguments.parse_args(argv)
    if options.windows < 1:
        arguments.error(f"--windows: found {options.windows}; expected a whole number of at least 1")
    report = DriftReport(options.model_dir, options.windows)
    out = options.out or options.model_dir / "drift.html"
    atomic_write_text(out, report.html())
    for title, columns, rows in report.tables():
        table(title, columns, rows)
        print()
    print(f"The report is in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
