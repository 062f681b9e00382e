import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tools.data import movielens

CUT = movielens.LAST_TRAIN_TIME
LATE = movielens.LAST_VALID_TIME

# user, movie, rating, time; not in the order of time, two ratings of one second (movie 2 before movie 1).
RATINGS = [
    (1, 3, 5, CUT),
    (1, 2, 3, CUT - 9),
    (1, 1, 4, CUT - 9),
    (1, 4, 2, LATE + 1),
    (2, 1, 1, LATE),
    (2, 3, 4, CUT + 1),
    (2, 2, 5, CUT - 5),
]
USERS = [(1, "F", 1, 10, "48067"), (2, "M", 56, 16, "02460")]
MOVIES = [
    (1, "Toy Story (1995)", "Animation|Children's|Comedy"),
    (2, "Misérables, Les (1995)", "Drama"),
    (3, "Associate, The (L'Associe)(1982)", "Comedy"),
    (4, '"Great  Day" in Harlem, A (1994)', "Documentary"),
]
TABLES = {"ratings": RATINGS, "users": USERS, "movies": MOVIES}


def write_dat(folder: Path) -> Path:
    for name, rows in TABLES.items():
        lines = ["::".join(map(str, row)) + "\n" for row in rows]
        (folder / f"{name}.dat").write_text("".join(lines), encoding="latin-1")
    return folder


def write_parquet(folder: Path) -> Path:
    for name, rows in TABLES.items():
        frame = pd.DataFrame(rows, columns=movielens._COLUMNS[name])
        if name == "ratings":
            frame["pos"] = [2, 0, 1, 3, 2, 1, 0]
            frame = frame.astype({"user_id": "int32", "movie_id": "int32", "rating": "int8", "pos": "int16"})
        frame.to_parquet(folder / f"{name}.parquet")
    return folder


@pytest.fixture(params=[write_dat, write_parquet], ids=["dat", "parquet"])
def source(request, tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    return request.param(folder)


def read(folder: Path, part: str) -> list[dict]:
    return pq.read_table(folder / f"{part}.parquet").to_pylist()


def test_load_joins_and_orders(source):
    rows = movielens.load(source)
    assert list(zip(rows.user_id, rows.pos, rows.movie_id, strict=True)) == [
        (1, 0, 2), (1, 1, 1), (1, 2, 3), (1, 3, 4), (2, 0, 2), (2, 1, 3), (2, 2, 1),
    ]  # fmt: skip
    first = rows.iloc[0]
    assert (first.title, first.year, first.genres) == ("Misérables, Les", 1995, "Drama")
    assert (first.gender, first.age, first.job_id) == (0, 0, 10)
    assert rows.title[2] == "Associate, The (L'Associe)"
    assert rows.title[3] == '"Great Day" in Harlem, A'
    assert (rows.gender[4], rows.age[4], rows.job_id[4]) == (1, 6, 16)


def test_random_protocol(source, tmp_path):
    assert movielens.prepare(source, tmp_path, "random") == {"train": 5, "test": 1}
    order = np.random.default_rng(20261121).permutation(6)
    labelled = [(1, 1, 1), (1, 3, 1), (1, 4, 0), (2, 2, 1), (2, 3, 1), (2, 1, 0)]  # user, movie, label; no rating 3
    rows = read(tmp_path, "train") + read(tmp_path, "test")
    assert [(r["user_id"], r["movie_id"], r["label"]) for r in rows] == [labelled[i] for i in order]
    assert list(rows[0]) == [
        "label", "user_id", "movie_id", "gender", "age", "job_id", "year", "title", "genres", "pos", "timestamp",
    ]  # fmt: skip


def test_temporal_protocol(source, tmp_path):
    assert movielens.prepare(source, tmp_path, "temporal") == {"train": 4, "valid": 2, "test": 1}
    train, valid, test = (read(tmp_path, part) for part in ("train", "valid", "test"))
    assert [(r["user_id"], r["movie_id"], r["label"]) for r in train] == [(1, 2, 0), (1, 1, 1), (2, 2, 1), (1, 3, 1)]
    assert [r["hist_movie_id"] for r in train] == [[], [2], [], [1, 2]]
    assert train[3]["hist_genres"] == ["Animation|Children's|Comedy", "Drama"]
    assert [(r["movie_id"], r["timestamp"], r["hist_movie_id"]) for r in valid] == [
        (3, CUT + 1, [2]),
        (1, LATE, [3, 2]),
    ]
    assert [(r["movie_id"], r["hist_movie_id"]) for r in test] == [(4, [3, 1, 2])]


def test_histories_hold_at_most_50(tmp_path):
    write_dat(tmp_path)
    lines = [f"1::{1 + i % 4}::4::{CUT - 100 + i}\n" for i in range(60)]
    (tmp_path / "ratings.dat").write_text("".join(lines))
    movielens.prepare(tmp_path, tmp_path / "out", "temporal")
    histories = [row["hist_movie_id"] for row in read(tmp_path / "out", "train")]
    assert [len(h) for h in histories] == [min(i, 50) for i in range(60)]
    assert histories[59] == [1 + i % 4 for i in range(58, 8, -1)]


def test_missing_folder_says_what_to_download(tmp_path, capsys):
    arguments = ["--source", str(tmp_path / "none"), "--out", str(tmp_path / "out"), "--protocol", "random"]
    assert movielens.main(arguments) == 2
    message = capsys.readouterr().err
    assert "ratings.dat" in message
    assert "https://grouplens.org/datasets/movielens/1m/" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("users.dat", "1::X::1::10::48067\n2::M::56::16::1\n", "gender"),
        ("users.dat", "1::F::1::10::48067\n", "user_id 2"),
        ("users.dat", "1::F::1::ten::48067\n", "whole number"),
        ("users.dat", "1::F\n", "empty cell in row 1"),
        ("movies.dat", "1::Toy Story::Comedy\n", "Toy Story"),
    ],
)
def test_broken_files_are_named(tmp_path, capsys, file, content, message):
    write_dat(tmp_path)
    (tmp_path / file).write_text(content)
    arguments = ["--source", str(tmp_path), "--out", str(tmp_path / "out"), "--protocol", "random"]
    assert movielens.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_command_says_that_a_part_is_not_the_full_set(source, tmp_path, capsys):
    assert movielens.main(["--source", str(source), "--out", str(tmp_path / "o"), "--protocol", "temporal"]) == 0
    captured = capsys.readouterr()
    assert "not the full" in captured.err
    assert "4 rows" in captured.out


@pytest.fixture
def full_set():
    folder = os.environ.get("EASYREC_LITE_ML1M", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("set EASYREC_LITE_ML1M to a folder with MovieLens-1M (tools/data/movielens.py says where from)")
    return folder


@pytest.mark.movielens
@pytest.mark.slow
def test_full_set_random(full_set, tmp_path):
    assert movielens.prepare(full_set, tmp_path, "random") == {"train": 665_110, "test": 73_902}
    test = pq.read_table(tmp_path / "test.parquet")
    assert test["label"].to_numpy().mean() == pytest.approx(0.7795, abs=5e-5)


@pytest.mark.movielens
@pytest.mark.slow
def test_full_set_temporal(full_set, tmp_path):
    counts = movielens.prepare(full_set, tmp_path, "temporal")
    assert counts == {"train": 800_168, "valid": 100_021, "test": 100_020}
    parts = [pq.read_table(tmp_path / f"{part}.parquet", columns=["timestamp"]) for part in counts]
    ends = [(part["timestamp"].to_numpy()[0], part["timestamp"].to_numpy()[-1]) for part in parts]
    assert ends[0][1] == CUT < ends[1][0]
    assert ends[1][1] == LATE < ends[2][0]
