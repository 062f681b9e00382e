"""What a cell means is settled by training: commands and exports read later rows the same way, whatever is in them."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_runs import Run, command, refused

import easyrec_lite as er
from easyrec_lite import _runs
from easyrec_lite.checkpoints import find
from easyrec_lite.config import load_config, to_text
from easyrec_lite.serving import Predictor

# Nothing says what type a column has.
CONFIG = """
train_config {
  optimizer_config { adam_optimizer { learning_rate { constant_learning_rate { learning_rate: 0.01 } } } }
  num_steps: 4
}
eval_config { metrics_set { auc {} } }
data_config { input_type: CSVInput with_header: true label_fields: "click" batch_size: 8 num_epochs: 9 }
features { input_names: "user" hash_bucket_size: 50 embedding_dim: 4 }
features { input_names: "phone" hash_bucket_size: 50 embedding_dim: 4 }
features { input_names: "price" feature_type: RawFeature }
model_config {
  model_class: "MultiTower"
  feature_groups { group_name: "all" feature_names: ["user", "phone", "price"] }
  multi_tower {
    towers { input: "all" dnn { hidden_units: [8] use_bn: false } }
    final_dnn { hidden_units: [4] use_bn: false }
  }
  embedding_initializer { truncated_normal_initializer { stddev: 0.5 } }
}
"""
PHONES = ["13800000000", "c7", "13800000001", ""]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on rows where `user` looks like whole numbers, `phone` like words and `price` like numbers."""
    folder = tmp_path_factory.mktemp("undeclared")
    rows = [f"{i % 2},{'' if i % 5 == 0 else i},{PHONES[i % 4]},{i / 2}" for i in range(40)]
    (folder / "x.config").write_text(CONFIG)
    (folder / "train.csv").write_text("\n".join(["click,user,phone,price", *rows]) + "\n")
    run = command("train", "--config", folder / "x.config", "--model_dir", folder / "model",
                  "--edit", f"train_input_path={folder}/train.csv")  # fmt: skip
    assert run.code == 0, run.err
    return folder / "model"


def predict(model_dir: Path, folder: Path, rows: list[str]) -> np.ndarray:
    (folder / "in.csv").write_text("\n".join(["price,phone,user", *rows]) + "\n")
    run = command("predict", "--model_dir", model_dir, "--input_path", folder / "in.csv", "--output_path",
                  folder / "out.parquet")  # fmt: skip
    assert run.code == 0, run.err
    return pq.read_table(folder / "out.parquet")["probs"].to_numpy()


def test_columns_are_what_training_read_them_as(model_dir: Path, tmp_path: Path) -> None:
    """A column of empty cells looks like text, one of round prices and phone numbers like whole numbers."""
    rows = ["2.5,13800000000,", "2,c7,5", "1.5,13800000001,", "3,,7"]
    together = predict(model_dir, tmp_path, rows)
    assert len(set(together)) == 4
    alone = [predict(model_dir, tmp_path, [row])[0] for row in rows]
    np.testing.assert_allclose(alone, together, rtol=1e-6)

    assert command("export", "--model_dir", model_dir, "--export_dir", tmp_path / "export").code == 0
    cells = [dict(zip(("price", "phone", "user"), row.split(","), strict=True)) for row in rows]
    np.testing.assert_allclose(Predictor(tmp_path / "export").predict(cells)["probs"], together, rtol=0, atol=1e-6)

    frame = pd.DataFrame({"price": [2.5, 1.5], "phone": [13800000000, 13800000001], "user": [None, None]})
    experiment = er.Experiment.open(model_dir)
    np.testing.assert_allclose(experiment.predict(frame)["probs"], together[[0, 2]], rtol=1e-6)


def test_a_type_that_nobody_declared_is_told(model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("price,phone,user\n1,c7,2.5\n")
    run = command("predict", "--model_dir", model_dir, "--input_path", tmp_path / "in.csv", "--output_path",
                  tmp_path / "out.csv")  # fmt: skip
    assert "'2.5' is not a whole number (INT64), a type inferred from the data; declare another" in refused(run)


def test_whole_numbers_beside_empty_cells_are_the_same_words(model_dir: Path, tmp_path: Path) -> None:
    """pandas makes floats of them; a float's own text would be 13800000000.0 or 1.38e+10."""
    words = predict(model_dir, tmp_path, ["2,13800000000,5", "2,,5"])
    experiment = er.Experiment.open(model_dir)
    frame = pd.DataFrame({"price": 2.0, "phone": [13800000000, None], "user": 5})
    assert frame["phone"].dtype == np.float64
    np.testing.assert_allclose(experiment.predict(frame)["probs"], words, rtol=1e-6)
    assert command("export", "--model_dir", model_dir, "--export_dir", tmp_path / "export").code == 0
    np.testing.assert_allclose(Predictor(tmp_path / "export").predict(frame)["probs"], words, rtol=0, atol=1e-6)


KEPT = pa.table(
    {
        "user": pa.array([1, None, 3], pa.int64()),
        "phone": ["c7", "", None],
        "price": [0.5, 1.5, 2.5],
        "id": pa.array([2**60 + 1, None, -1], pa.int64()),
        "hash": pa.array([2**64 - 1, 2**63, 0], pa.uint64()),
        "exact": [16777217.0, 0.1, None],
        "at": pa.array([datetime.datetime(2026, 5, 1, 12, 30), None, None], pa.timestamp("us")),
        "list": pa.array([[1, 2], [], None], pa.list_(pa.int64())),
        "bytes": pa.array([[b"a", None, "é".encode()], [], None], pa.list_(pa.binary())),
        "word": pa.array([b"a,b", "é".encode(), None], pa.binary()),
    }
)
NAMES = ["id", "hash", "exact", "at", "list", "bytes", "word", "user"]


def kept(model_dir: Path, folder: Path, ending: str, **tables: pa.Table) -> Run:
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
    return command(
        "predict", "--model_dir", model_dir, "--input_path", ",".join(str(folder / f"{n}.parquet") for n in tables),
        "--output_path", folder / f"out{ending}", "--reserved_cols", ",".join(NAMES), "--output_cols", "probs",
        "--batch_size", "2",
    )  # fmt: skip


def test_reserved_columns_are_handed_on_as_they_are(model_dir: Path, tmp_path: Path) -> None:
    """Nothing is rounded, filled in or made another type; training's types are for features."""
    run = kept(model_dir, tmp_path, ".parquet", a=KEPT)
    assert run.code == 0, run.err
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.column_names == [*NAMES, "probs"]
    expected = KEPT.set_column(KEPT.column_names.index("word"), "word", KEPT["word"].cast(pa.string()))
    assert found.select(NAMES).to_pydict() == expected.select(NAMES).to_pydict()
    assert found.select(NAMES).schema.types == expected.select(NAMES).schema.types

    assert kept(model_dir, tmp_path, ".csv", a=KEPT).code == 0
    lines = (tmp_path / "out.csv").read_text().splitlines()
    time = "2026-05-01 12:30:00.000000"
    assert lines[1].startswith(f'1152921504606846977,18446744073709551615,16777217,{time},"1,2","a,,é","a,b",1,')
    assert lines[2].startswith(',9223372036854775808,0.1,,"","","é",,')

    frame = er.Experiment.open(model_dir).predict(tmp_path / "a.parquet", keep=["id"])
    assert frame["id"].tolist() == KEPT["id"].to_pylist()
    frame = er.Experiment.open(model_dir).predict(KEPT.to_pandas(), keep=["hash", "exact", "word"])
    assert frame["hash"].tolist() == [2**64 - 1, 2**63, 0]
    assert frame["exact"].tolist()[:2] == [16777217.0, 0.1]
    assert np.isnan(frame["exact"][2])
    assert frame["word"].tolist()[:2] == ["a,b", "é"]
    assert frame["word"].isna().tolist() == [False, False, True]


def test_files_whose_reserved_columns_differ(model_dir: Path, tmp_path: Path) -> None:
    narrow = KEPT.set_column(3, "id", pa.array([1, 2, 3], pa.int32()))
    run = kept(model_dir, tmp_path, ".parquet", a=KEPT, b=narrow)
    assert run.code == 0, run.err
    assert pq.read_table(tmp_path / "out.parquet")["id"].to_pylist() == [2**60 + 1, None, -1, 1, 2, 3]
    (tmp_path / "out.parquet").unlink()
    words = KEPT.set_column(3, "id", pa.array(["1", "x", "3"]))
    message = refused(kept(model_dir, tmp_path, ".parquet", a=KEPT, b=words))
    assert f"{tmp_path}/b.parquet: found string in column 'id'; expected int64, as in the first file" in message
    assert not (tmp_path / "out.parquet").exists()
    empty = KEPT.set_column(3, "id", pa.nulls(3))
    assert kept(model_dir, tmp_path, ".parquet", a=empty, b=words).code == 0
    assert pq.read_table(tmp_path / "out.parquet")["id"].to_pylist() == [None, None, None, "1", "x", "3"]


def test_reserved_columns_named_as_predictions(model_dir: Path, tmp_path: Path) -> None:
    table = KEPT.append_column("probs", pa.array([1, 2, 3]))
    pq.write_table(table, tmp_path / "in.parquet")
    flags = ["predict", "--model_dir", model_dir, "--input_path", tmp_path / "in.parquet", "--output_path",
             tmp_path / "out.parquet", "--reserved_cols", "probs"]  # fmt: skip
    assert "Columns to hand on: found ['probs'], names of predictions" in refused(command(*flags))
    assert not (tmp_path / "out.parquet").exists()
    assert command(*flags, "--output_cols", "logits").code == 0
    assert pq.read_table(tmp_path / "out.parquet").column_names == ["probs", "logits"]
    with pytest.raises(er.UserError, match="names of predictions"):
        er.Experiment.open(model_dir).predict(table.to_pandas(), keep=["probs"])


@pytest.mark.parametrize("name", ["evaluate", "predict", "export"])
def test_another_config_than_the_one_trained_with_is_told(model_dir: Path, tmp_path: Path, name: str) -> None:
    rows = ["--input_path", tmp_path / "in.csv", "--output_path", tmp_path / "out.csv"]
    flags = {"evaluate": [], "predict": rows, "export": ["--export_dir", tmp_path / "export"]}[name]
    (tmp_path / "in.csv").write_text("click,user,phone,price\n1,1,a,1.5\n0,2,b,2.5\n")
    flags += ["--edit", f"eval_input_path={tmp_path}/in.csv", "--edit", "data_config.batch_size=2"]
    same = command(name, "--model_dir", model_dir, *flags)
    assert (same.code, "another config" in same.err) == (0, False), same.err
    other = command(name, "--model_dir", model_dir, *flags, "--edit", "features[price].max_val=9")
    assert other.code == 0, other.err
    assert "were trained with another config: features[price].max_val was 0.0, is 9.0" in other.err


def test_what_the_config_of_a_checkpoint_names_may_be_gone(
    model_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a file of words that was moved, by an edit of the config."""
    message = load_config(model_dir / "pipeline.config").message
    message.features[1].ClearField("hash_bucket_size")
    message.features[1].vocab_file = "moved.txt"
    checkpoint = find(model_dir)
    monkeypatch.setattr(type(checkpoint), "config", to_text(message))
    message.features[1].vocab_file = "words.txt"
    _runs.warn_of_changes(message, checkpoint)
    assert "features[phone].vocab_file was 'moved.txt', is 'words.txt'" in capsys.readouterr().err


def test_rows_without_a_label_are_bad_rows(model_dir: Path, tmp_path: Path) -> None:
    """A 0 in its place would be learned as if nobody had clicked."""
    rows = [f"{'' if i == 7 else i % 2},{i},a,{i}" for i in range(200)]
    (tmp_path / "train.csv").write_text("\n".join(["click,user,phone,price", *rows]) + "\n")
    flags = ["train", "--config", model_dir.parent / "x.config", "--edit", f"train_input_path={tmp_path}/train.csv"]
    run = command(*flags, "--model_dir", tmp_path / "a", "--edit", "data_config.max_bad_row_share=0.01")
    assert run.code == 0, run.err
    (bad,) = [json.loads(line) for line in (tmp_path / "a" / "bad_rows.jsonl").read_text().splitlines()]
    assert (bad["line"], bad["column"], bad["value"]) == (9, "click", "")
    assert bad["reason"] == "is missing: mend it, or declare its default_val"
    assert "column 'click': '' is missing: mend it, or declare its default_val" in refused(
        command(*flags, "--model_dir", tmp_path / "b", "--edit", "data_config.max_bad_row_share=0")
    )
    declared = 'input_fields { input_name: "click" input_type: INT64 default_val: "0" } label_fields'
    (tmp_path / "x.config").write_text(CONFIG.replace("label_fields", declared))
    flags[2] = tmp_path / "x.config"
    run = command(*flags, "--model_dir", tmp_path / "c")
    assert run.code == 0, run.err
    assert not (tmp_path / "c" / "bad_rows.jsonl").exists()

    # The model has one task, so nothing asks for a second label.
    rows = [f"{i % 2},{row}" for i, row in enumerate(rows)]
    (tmp_path / "train.csv").write_text("\n".join(["seen,click,user,phone,price", *rows]) + "\n")
    (tmp_path / "x.config").write_text(CONFIG.replace('"click"', '["seen", "click"]'))
    run = command(*flags, "--model_dir", tmp_path / "d")
    assert run.code == 0, run.err
    assert not (tmp_path / "d" / "bad_rows.jsonl").exists()
