"""Prepares MovieLens-1M from a folder that you have, by one of two fixed protocols.

    python -m tools.data.movielens --source ~/ml-1m --out data/ml-1m --protocol random

* `random` is EasyRec's way, with one fixed split: label 1 for ratings 4 and 5, 0 for 1 and 2, rating 3 dropped; the
  739,012 rows in the order (user_id, pos) are permuted by `numpy.random.default_rng(20261121)`, and the first 665,110
  are the training part. A random split leaks across users and time: compare its AUCs with each other only.
* `temporal` keeps every rating (label: 4 or 5) and splits at two fixed times, 80/10/10, into train, valid and test,
  each in the order of time. `hist_movie_id` and `hist_genres` are what the user rated before, most recent first, at
  most 50.

`pos` is the rank of a rating in its user's history. GroupLens's files do not order ratings of one second; there the
order of the file decides. The data may be had at https://grouplens.org/datasets/movielens/1m/ (for research; not to be
redistributed). Paper: Harper and Konstan, "The MovieLens Datasets", 2015.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tools.data._files import replacing

HISTORY = 50
FULL_RATINGS = 1_000_209
RANDOM_ROWS, RANDOM_TRAIN_ROWS, RANDOM_SEED = 739_012, 665_110, 20261121
TEMPORAL_ROWS = {"train": 800_168, "valid": 100_021, "test": 100_020}
LAST_TRAIN_TIME, LAST_VALID_TIME = 975_768_738, 978_133_414
AGES = (1, 18, 25, 35, 45, 50, 56)

_COLUMNS = {
    "ratings": ("user_id", "movie_id", "rating", "timestamp"),
    "users": ("user_id", "gender", "age", "occupation", "zip"),
    "movies": ("movie_id", "title", "genres"),
}
_NUMBERS = ("user_id", "movie_id", "rating", "timestamp", "age", "occupation")


class SourceError(Exception):
    """The source folder is missing, incomplete, or holds something else than MovieLens-1M."""


def load(source: str | os.PathLike[str]) -> pd.DataFrame:
    """All ratings with their users and movies, in the order (user_id, pos).

    Reads GroupLens's `ratings.dat`, `users.dat` and `movies.dat`, or `.parquet` files of the same columns (there
    `pos` may be given). Columns: user_id, movie_id, rating, timestamp, pos, gender (0 F, 1 M), age (index into AGES),
    job_id, year, title (words joined by a space, without the year), genres (joined by "|").

    Raises:
        SourceError: a file is missing or its content is not MovieLens-1M's.
    """
    ratings, users, movies = (_read(Path(source), name) for name in ("ratings", "users", "movies"))
    order = ["user_id", "pos"] if "pos" in ratings else ["user_id", "timestamp"]
    ratings = ratings.sort_values(order, kind="stable", ignore_index=True)
    ratings["pos"] = ratings.groupby("user_id").cumcount()

    users["gender"] = _coded(users["gender"], {"F": 0, "M": 1}, "users: gender")
    users["age"] = _coded(users["age"], {age: index for index, age in enumerate(AGES)}, "users: age")
    parts = movies["title"].str.extract(r"^(?P<title>.*?)\s*\((?P<year>\d{4})\)\s*$")
    if parts["year"].isna().any():
        title = movies["title"][parts["year"].isna()].iloc[0]
        raise SourceError(f"movies: expected titles like 'Toy Story (1995)', found {title!r}.")
    movies["year"] = parts["year"].astype(np.int64)
    movies["title"] = parts["title"].str.split().str.join(" ")

    rows = ratings.merge(users.rename(columns={"occupation": "job_id"}), on="user_id", how="left")
    rows = rows.merge(movies, on="movie_id", how="left")
    for column, key in (("job_id", "user_id"), ("title", "movie_id")):
        if rows[column].isna().any():
            missing = rows[key][rows[column].isna()].iloc[0]
            raise SourceError(f"ratings: {key} {missing} is not in the file of {key.removesuffix('_id')}s.")
    return rows.astype({"gender": np.int64, "age": np.int64, "job_id": np.int64, "year": np.int64})


def prepare(source: str | os.PathLike[str], out: str | os.PathLike[str], protocol: str) -> dict[str, int]:
    """Writes `<part>.parquet` files below `out` and returns the number of rows of each part.

    Raises:
        SourceError: see `load`; or the full set does not split into the protocol's row counts.
        ValueError: `protocol` is neither "random" nor "temporal".
    """
    if protocol not in _PROTOCOLS:
        raise ValueError(f"Expected protocol {' or '.join(map(repr, _PROTOCOLS))}. Received: {protocol!r}")
    rows = load(source)
    tables = _PROTOCOLS[protocol](rows)
    counts = {part: table.num_rows for part, table in tables.items()}
    expected = _FULL_COUNTS[protocol]
    if len(rows) == FULL_RATINGS and counts != expected:
        raise SourceError(f"{source}: expected {expected} rows by protocol {protocol!r}, found {counts}.")
    for part, table in tables.items():
        with replacing(Path(out) / f"{part}.parquet") as path:
            pq.write_table(table, path, row_group_size=65_536)
    return counts


def _random(rows: pd.DataFrame) -> dict[str, pa.Table]:
    rows = rows[rows["rating"] != 3]
    table = _table(rows)
    order = np.random.default_rng(RANDOM_SEED).permutation(len(rows))
    train = len(rows) * RANDOM_TRAIN_ROWS // RANDOM_ROWS
    return {"train": table.take(order[:train]), "test": table.take(order[train:])}


def _temporal(rows: pd.DataFrame) -> dict[str, pa.Table]:
    table, rank = _table(rows), rows["pos"].to_numpy()
    time = rows["timestamp"].to_numpy()
    order = np.argsort(time, kind="stable")
    cuts = np.searchsorted(time[order], [LAST_TRAIN_TIME, LAST_VALID_TIME], side="right")
    return {
        # In pieces: the indices of all histories at once would take gigabytes.
        part: pa.concat_tables(_with_histories(table, rank, piece) for piece in np.array_split(index, 16))
        for part, index in zip(TEMPORAL_ROWS, np.split(order, cuts), strict=True)
    }


def _with_histories(table: pa.Table, rank: np.ndarray, index: np.ndarray) -> pa.Table:
    """Rows `index` of a table in the order (user_id, rank), each with the rows of its user just before it."""
    lengths = np.minimum(rank[index], HISTORY)
    ends = np.cumsum(lengths)
    steps_back = 1 + np.arange(lengths.sum()) - np.repeat(ends - lengths, lengths)
    earlier = np.repeat(index, lengths) - steps_back
    splits = pa.array(np.concatenate([[0], ends]).astype(np.int32))
    part = table.take(index)
    for name in ("movie_id", "genres"):
        values = table[name].take(earlier).combine_chunks()
        part = part.append_column(f"hist_{name}", pa.ListArray.from_arrays(splits, values))
    return part


def _table(rows: pd.DataFrame) -> pa.Table:
    columns = ["user_id", "movie_id", "gender", "age", "job_id", "year", "title", "genres", "pos", "timestamp"]
    label = (rows["rating"] >= 4).astype(np.int32)
    table = pa.Table.from_pandas(rows[columns].assign(label=label)[["label", *columns]], preserve_index=False)
    # pandas reads text as large_string; plain strings are what every Parquet reader knows.
    schema = pa.schema([(f.name, pa.string() if f.name in ("title", "genres") else f.type) for f in table.schema])
    return table.cast(schema).replace_schema_metadata()


_PROTOCOLS = {"random": _random, "temporal": _temporal}
_FULL_COUNTS = {
    "random": {"train": RANDOM_TRAIN_ROWS, "test": RANDOM_ROWS - RANDOM_TRAIN_ROWS},
    "temporal": TEMPORAL_ROWS,
}


def _read(folder: Path, name: str) -> pd.DataFrame:
    text, parquet = folder / f"{name}.dat", folder / f"{name}.parquet"
    columns = _COLUMNS[name]
    if text.is_file():
        # Titles hold commas and quotes, but no tabs. pandas is ten times slower with a separator of two characters.
        content = text.read_bytes().decode("latin-1").replace("::", "\t")
        try:
            frame = pd.read_csv(
                io.StringIO(content), sep="\t", header=None, names=columns, index_col=False, quoting=3, dtype=str
            )
        except pd.errors.ParserError as error:
            raise SourceError(f"{text}: expected lines of {'::'.join(columns)}; {error}") from error
    elif parquet.is_file():
        frame = pd.read_parquet(parquet)
    else:
        raise SourceError(
            f"{folder}: expected {text.name} or {parquet.name}, found neither. Download ml-1m.zip from "
            "https://grouplens.org/datasets/movielens/1m/, unzip it, and pass its folder ml-1m as --source."
        )
    missing = [column for column in columns if column != "zip" and column not in frame]
    if missing:
        raise SourceError(f"{folder}: {name} lacks the columns {missing}; expected {list(columns)}.")
    frame = frame[[*(column for column in columns if column != "zip"), *({"pos"} & set(frame.columns))]].copy()
    if frame.isna().any(axis=None):
        line = int(np.flatnonzero(frame.isna().any(axis=1))[0]) + 1
        raise SourceError(f"{folder}: {name} has an empty cell in row {line}; expected {'::'.join(columns)}.")
    try:
        return frame.astype({column: np.int64 for column in _NUMBERS if column in frame})
    except ValueError as error:
        raise SourceError(f"{folder}: {name} has a cell that is not a whole number: {error}") from error


def _coded(values: pd.Series, codes: dict[str, int] | dict[int, int], place: str) -> pd.Series:
    coded = values.map(codes)
    if coded.isna().any():
        raise SourceError(f"{place}: expected one of {list(codes)}, found {values[coded.isna()].iloc[0]!r}.")
    return coded


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.data.movielens", description="Prepares MovieLens-1M from a folder that you have."
    )
    parser.add_argument("--source", required=True, help="folder with ratings, users and movies (.dat or .parquet)")
    parser.add_argument("--out", required=True, help="folder to write to")
    parser.add_argument("--protocol", required=True, choices=tuple(_PROTOCOLS))
    options = parser.parse_args(arguments)
    try:
        counts = prepare(options.source, options.out, options.protocol)
    except SourceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if sum(counts.values()) != sum(_FULL_COUNTS[options.protocol].values()):
        print("note: this is not the full MovieLens-1M; results do not compare.", file=sys.stderr)
    for part, count in counts.items():
        print(f"{Path(options.out) / part}.parquet  {count:,} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
