"""Generates a Taobao-like ads data set of any size from a seed, whose best possible AUC is known.

    python -m tools.data.taobao_like --out data/ads --rows 1000000 --seed 1

writes `train/` and `eval/` (later in time) as Parquet or CSV files, `items` (the whole item set, for recall) and
`meta.json` (parameters and what a model can reach). Every row is an ad shown to a user: profile, ad, context, the
user's last views (most recent first), and the labels `clk` and `buy` (only after a click). `expected_clk` and
`expected_buy` are the probabilities that the labels were tossed with. They are a function of the other columns, so no
model can rank better than they do. Never use them as features. Ids start at 1; a missing profile cell is null.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tools.data._ads_labels import LabelModel, Labels
from tools.data._ads_population import PROFILE, Histories, Impressions, Population, event_times
from tools.data._ads_report import Report
from tools.data._files import replacing

ROW_GROUP = 65_536
_FILE_ROWS = 4 * ROW_GROUP
_DAYS = 11.0
_CSV = pyarrow.csv.WriteOptions(quoting_style="needed")
_VERSION = 1  # raised whenever the same parameters give other rows


@dataclasses.dataclass(frozen=True)
class Parameters:
    """What the rows are a function of. `eval_rows` come after `rows` in time; days are of the whole."""

    rows: int
    eval_rows: int
    users: int = 100_000
    items: int = 50_000
    seed: int = 1
    format: str = "parquet"
    version: int = _VERSION

    def __post_init__(self) -> None:
        for name in ("rows", "eval_rows", "users", "items"):
            if getattr(self, name) < 1:
                raise ValueError(f"Expected {name} of at least 1. Received: {getattr(self, name)}")
        if self.format not in ("parquet", "csv"):
            raise ValueError(f"Expected format 'parquet' or 'csv'. Received: {self.format!r}")


class Generator:
    """Makes any rows of the data set that `parameters` describe."""

    def __init__(self, parameters: Parameters):
        self.parameters = parameters
        self.population = Population(parameters.seed, parameters.users, parameters.items)
        self.model = LabelModel(self.population, parameters.seed)

    def make(self, start: int, stop: int) -> tuple[Impressions, Histories, Labels]:
        """Rows `start` to `stop` (exclusive), the same in whatever pieces they are asked for."""
        row = np.arange(start, stop)
        total = self.parameters.rows + self.parameters.eval_rows
        seen = self.population.impressions(row, event_times(row, total, _DAYS, self.parameters.seed))
        viewed = self.population.histories(seen)
        return seen, viewed, self.model.labels(seen, viewed)

    def table(self, seen: Impressions, viewed: Histories, labels: Labels) -> pa.Table:
        """The rows as written to files: one column a field, histories as lists."""
        columns: dict[str, pa.Array] = {"user_id": pa.array(self.population.user_id(seen.user))}
        for name in PROFILE:
            level = seen.profile[name]
            columns[name] = pa.array(level.astype(np.int32), mask=level == 0)
        columns |= {name: pa.array(values) for name, values in self.population.catalogue.columns(seen.item).items()}
        for name, values in {"pid": seen.pid, "hour": seen.hour, "weekday": seen.weekday}.items():
            columns[name] = pa.array(values.astype(np.int32))
        splits = pa.array(np.concatenate([[0], np.cumsum(viewed.lengths)]).astype(np.int32))
        history = self.population.catalogue.columns(viewed.item)
        for name in ("item_id", "cate_id", "brand_id"):
            columns[f"hist_{name}"] = pa.ListArray.from_arrays(splits, pa.array(history[name]))
        columns["event_time"] = pa.array(seen.event_time)
        columns["clk"] = pa.array(labels.click.astype(np.int32))
        columns["buy"] = pa.array(labels.buy.astype(np.int32))
        columns["expected_clk"] = pa.array(labels.expected_click.astype(np.float32))
        columns["expected_buy"] = pa.array(labels.expected_buy.astype(np.float32))
        return pa.table(columns)

    def items(self) -> pa.Table:
        """The whole item set, by item_id."""
        columns = self.population.catalogue.columns(np.arange(self.parameters.items))
        return pa.table(columns).sort_by("item_id")


def generate(
    out: str | os.PathLike[str],
    rows: int,
    *,
    eval_rows: int | None = None,
    users: int = 100_000,
    items: int = 50_000,
    seed: int = 1,
    format: str = "parquet",
    chunk_rows: int = ROW_GROUP,
    overwrite: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Writes the data set below `out` and returns the content of its meta.json.

    `eval_rows` is a tenth of `rows` by default. `chunk_rows` bounds memory and changes nothing else. A data set with
    the same parameters that lies there already is kept.

    Raises:
        ValueError: a parameter is out of range.
        FileExistsError: `out` holds other data and `overwrite` is false.
    """
    if chunk_rows < 1:
        raise ValueError(f"Expected chunk_rows of at least 1. Received: {chunk_rows}")
    parameters = Parameters(rows, max(rows // 10, 1) if eval_rows is None else eval_rows, users, items, seed, format)
    folder = Path(out)
    present = _present(folder, parameters, overwrite)
    if present is not None:
        return present

    started = time.perf_counter()
    generator = Generator(parameters)
    report = Report(generator.population, generator.model)
    _write(folder / f"items.{format}", iter([generator.items()]), format)
    bar = Progress(
        TextColumn("generating"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not progress,
    )
    with bar:
        task = bar.add_task("rows", total=rows + parameters.eval_rows)
        for part, start, stop in (("train", 0, rows), ("eval", rows, rows + parameters.eval_rows)):
            for number, first in enumerate(range(start, stop, _FILE_ROWS)):
                last = min(first + _FILE_ROWS, stop)
                groups = _row_groups(generator, report, part, first, last, chunk_rows)
                _write(folder / part / f"part-{number:05d}.{format}", bar.track(groups, task_id=task), format)
    catalogue = generator.population.catalogue
    meta = {
        "parameters": dataclasses.asdict(parameters),
        "sizes": {name: getattr(catalogue, name) for name in ("categories", "brands", "customers")},
        "figures": report.figures(),
        "seconds": round(time.perf_counter() - started, 1),
    }
    # Last, so that a folder with a meta.json is complete.
    with replacing(folder / "meta.json") as path:
        path.write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
    return meta


def describe(meta: dict[str, Any]) -> str:
    """The figures of a meta.json as lines for people."""
    figures = meta["figures"]
    lines = []
    for part in ("train", "eval"):
        f = figures[part]
        lines.append(
            f"{part}: {f['rows']:,} rows, clicks {f['click_rate']:.2%}, "
            f"purchases {f['buy_rate_of_clicks']:.2%} of clicks, "
            f"histories {f['mean_history']:.1f} on average, {f['empty_history_share']:.1%} empty"
        )
    without = figures["best_auc_click_without_histories"]
    odds = figures["click_log_odds"]
    lines += [
        f"click AUC of the expected label (best possible)     {figures['best_auc_click']:.4f}"
        f" (mean over coins {figures['best_auc_click_over_coins']:.4f})",
        f"click AUC without histories, at most                {without['auc']:.4f}"
        f" (falls by {without['falls_by']:.4f}; for a new user {without['auc_new_user']:.4f})",
        f"click AUC of item popularity (smoothed click rate)  {figures['popularity_auc_click']:.4f}",
        f"buy AUC of the expected label (best possible)       {figures['best_auc_buy']:.4f}",
        f"recall@10 of the most clicked items                 {figures['popularity_recall_at_10']:.4f}",
        f"recall@10 of history counts x popularity            {figures['recall_at_10_of_history_counts']:.4f}",
        f"recall@10 of hidden interests x popularity          {figures['recall_at_10_of_hidden_interests']:.4f}",
        f"click log-odds: variance {odds['variance']:.3f}, of which",
        *(f"    {name:<36}{share:7.1%}" for name, share in odds["share_by_factor"].items()),
        "not to be learnt from so many rows, by nature (tail ids):",
        *(f"    {name:<36}{share:7.1%}" for name, share in odds["unlearnable_share"].items()),
    ]
    return "\n".join(lines)


def _present(folder: Path, parameters: Parameters, overwrite: bool) -> dict[str, Any] | None:
    """The meta.json of the same data in `folder`, or None after making room for new data."""
    old = [path for part in ("train", "eval") for path in sorted((folder / part).glob("part-*"))]
    meta_path = folder / "meta.json"
    if meta_path.exists():
        meta: dict[str, Any] = json.loads(meta_path.read_text(encoding="utf-8"))
        if meta.get("parameters") == dataclasses.asdict(parameters) and not overwrite:
            return meta
        old.append(meta_path)
    if old and not overwrite:
        raise FileExistsError(
            f"{folder} holds other data, or data that was not finished (such as {old[-1]}). "
            "Choose another folder, or pass --overwrite to replace it."
        )
    # meta.json first: it vouches for the rest.
    for path in reversed(old):
        path.unlink()
    return None


def _row_groups(
    generator: Generator, report: Report, part: str, start: int, stop: int, chunk_rows: int
) -> Iterator[pa.Table]:
    for first in range(start, stop, ROW_GROUP):
        last = min(first + ROW_GROUP, stop)
        chunks = []
        for begin in range(first, last, chunk_rows):
            made = generator.make(begin, min(begin + chunk_rows, last))
            report.add(part, *made)
            chunks.append(generator.table(*made))
        yield pa.concat_tables(chunks).combine_chunks()


def _write(path: Path, tables: Iterable[pa.Table], format: str) -> None:
    writer = None
    with replacing(path) as partial:
        try:
            for table in tables:
                table = table if format == "parquet" else _joined_lists(table)
                if writer is None:
                    writer = (
                        pq.ParquetWriter(partial, table.schema)
                        if format == "parquet"
                        else pa.csv.CSVWriter(partial, table.schema, write_options=_CSV)
                    )
                writer.write_table(table, table.num_rows)
        finally:
            if writer is not None:
                writer.close()


def _joined_lists(table: pa.Table) -> pa.Table:
    for index, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            texts = pc.binary_join(table[field.name].cast(pa.list_(pa.string())), "|")
            table = table.set_column(index, field.name, texts)
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.data.taobao_like",
        description="Generates a Taobao-like ads data set whose best possible AUC is known.",
    )
    parser.add_argument("--out", required=True, help="folder to write to")
    parser.add_argument("--rows", type=int, default=1_000_000, help="training rows (default: %(default)s)")
    parser.add_argument("--eval_rows", type=int, help="evaluation rows, later in time (default: a tenth of --rows)")
    parser.add_argument("--users", type=int, default=100_000, help="(default: %(default)s)")
    parser.add_argument("--items", type=int, default=50_000, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="same seed, same rows (default: %(default)s)")
    parser.add_argument("--format", choices=("parquet", "csv"), default="parquet", help="(default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace what lies in --out")
    options = vars(parser.parse_args(arguments))
    try:
        meta = generate(options.pop("out"), options.pop("rows"), progress=sys.stderr.isatty(), **options)
    except (ValueError, FileExistsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(describe(meta))
    return 0


if __name__ == "__main__":
    sys.exit(main())
