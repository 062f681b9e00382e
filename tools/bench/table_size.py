"""Step time and peak memory against the size of the embedding table.

    python -m tools.bench.table_size [--table_rows 10000 1000000] [--pairs 7]

MultiTower with 20 features that share one table of 1e4 to 1e7 rows of width 16. A batch of 4,096 has 81,920 ids, always
8,000 distinct ones, drawn evenly from the whole table: each size does the same work, and only memory is further away.
Each size runs in a process of its own; the dense floor beside it (see `tools.bench.training`) shows how busy the
machine was. **x least** compares the steps' multiples of the floor. **table** is weights and optimizer state (Adam: two
numbers a weight); **peak** is the largest resident set of the process.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from easyrec_lite.terminal import main_guard, table
from tools.bench import _common
from tools.bench._cases import Case, write_rows
from tools.bench.training import Options, Result, measure

TABLE_ROWS = (10_000, 100_000, 1_000_000, 10_000_000)

_FLOATS_A_WEIGHT = 3  # the weight and Adam's two moments


def case_of(table_rows: int) -> Case:
    """The case of one table size."""
    return Case(table_rows=table_rows, shared=True, distinct=8000, rows=131_072)


def measure_all(cases: Sequence[Case], options: Options) -> Iterator[Result]:
    """Measures each case in a process of its own. Rows are not shuffled, so that batches stay as they were written."""
    options = dataclasses.replace(options, edits=("data_config.shuffle=false", *options.edits))
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "rows.parquet"
            write_rows(data, case)
            result = _common.in_own_process(measure, "MultiTower", case, data, options)
            print(f"{case.table_rows:,} rows: {result.ratio.text()} x floor", file=sys.stderr)
            yield result


def show(cases: Sequence[Case], results: Sequence[Result]) -> None:
    """Prints the table."""
    least = min(result.ratio.median for result in results)
    columns = (
        "rows",
        "distinct",
        "step ms",
        "us/row",
        "x floor",
        "x least",
        "table MiB",
        "peak MiB",
        "build s",
    )
    rows = [
        (
            case.table_rows,
            round(result.distinct_share * case.batch * case.features),
            result.step.scaled(1e3).text(1),
            result.cpu_us_per_row.text(1),
            result.ratio.text(),
            f"{result.ratio.median / least:.2f}",
            (case.table_rows * case.dim * 4 * _FLOATS_A_WEIGHT) >> 20,
            result.peak_bytes >> 20,
            f"{result.build_seconds:.1f}",
        )
        for case, result in zip(cases, results, strict=True)
    ]
    table("Step against table size, median (quartiles)", columns, rows)


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = _common.parser("table_size", __doc__)
    parser.add_argument("--table_rows", type=int, nargs="+", default=list(TABLE_ROWS), metavar="N")
    parser.add_argument("--pairs", type=int, default=7, help="blocks of real steps and of floor steps")
    parser.add_argument("--steps", type=int, default=Options().steps, help="steps a block")
    flags = parser.parse_args(argv)
    cases = [case_of(rows) for rows in flags.table_rows]
    options = Options(flags.pairs, flags.steps)
    results = list(measure_all(cases, options))
    show(cases, results)
    _common.keep(flags.json, "table_size", [{"case": c, "result": r} for c, r in zip(cases, results, strict=True)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
