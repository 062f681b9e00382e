"""From rows to a served model, by the commands alone, with a sample config on generated rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_runs import SAMPLES, Run, command, small

from easyrec_lite.serving import Predictor

Trained = tuple[Path, Run]
CONFIG = SAMPLES / "multi_tower_taobao.config"


@pytest.fixture(scope="module")
def predictor(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """Over what the export command wrote."""
    model_dir, _ = trained
    exports = tmp_path_factory.mktemp("exports")
    run = command("export", "--model_dir", model_dir, "--export_dir", exports)
    assert run.code == 0, run.err
    (version,) = exports.iterdir()
    assert str(version) in run.out
    return Predictor(exports)


def metrics_of(model_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (model_dir / "metrics.jsonl").read_text().splitlines()]


def test_training_leaves_all_that_is_promised(trained: Trained) -> None:
    model_dir, run = trained
    assert {path.name for path in model_dir.iterdir()} == {
        "checkpoints",
        "export",
        "metrics.jsonl",
        "pipeline.config",
        "statistics.json",
        "tensorboard",
    }
    assert [path.name[-2:] for path in sorted((model_dir / "checkpoints").iterdir())] == ["06", "12"]
    assert len(list((model_dir / "export" / "final").iterdir())) == 1
    assert list((model_dir / "tensorboard").rglob("events.out*"))
    evaluations = [record for record in metrics_of(model_dir) if record["kind"] == "evaluation"]
    assert [record["step"] for record in evaluations] == [6, 12]
    assert evaluations[-1].keys() >= {"auc", "gauc", "logloss", "loss", "rows"}
    assert evaluations[-1]["rows"] == 500
    # For people: progress as lines, a table of the metrics, and where things are.
    assert "evaluation at step 6" in run.err
    assert "step 12/12" in run.err
    assert "Trained MultiTower: step 12, num_steps" in run.out
    assert str(model_dir) in run.out
    assert "1,536 in" in run.out


def test_evaluation_says_what_training_said(trained: Trained) -> None:
    model_dir, _ = trained
    run = command("evaluate", "--pipeline_config_path", model_dir / "pipeline.config")
    assert run.code == 0, run.err
    result = json.loads((model_dir / "eval_result.json").read_text())
    (model_dir / "eval_result.json").unlink()
    last = metrics_of(model_dir)[-1]
    assert result["step"] == 12
    for name in ("auc", "gauc", "logloss", "loss"):
        assert result[name] == pytest.approx(last[name], rel=1e-6)
        assert name in run.out


def test_evaluation_of_other_rows_and_steps(trained: Trained, data: Path, tmp_path: Path) -> None:
    model_dir, _ = trained
    (first, _) = sorted((model_dir / "checkpoints").iterdir())
    head = pq.read_table(data / "eval").slice(0, 100)
    pq.write_table(head, tmp_path / "head.parquet")
    place = tmp_path / "result.json"
    run = command(
        "evaluate", "--model_dir", model_dir, "--checkpoint_path", first, "--eval_input_path",
        tmp_path / "head.parquet", "--eval_result_path", place,
    )  # fmt: skip
    assert run.code == 0, run.err
    result = json.loads(place.read_text())
    assert (result["step"], result["rows"]) == (6, 100)


def test_predictions_are_those_of_the_export(
    trained: Trained, data: Path, predictor: Predictor, tmp_path: Path
) -> None:
    model_dir, _ = trained
    table = pq.read_table(data / "eval")
    expected = predictor.predict(table.to_pandas())["probs"]
    written = {}
    for name in ("new/out.parquet", "out.csv"):
        run = command(
            "predict", "--model_dir", model_dir, "--input_path", f"{data}/eval/*.parquet", "--output_path",
            tmp_path / name, "--reserved_cols", "clk,user_id,hist_item_id,price", "--batch_size", "128",
        )  # fmt: skip
        assert run.code == 0, run.err
        assert "500" in run.out
        written[name] = tmp_path / name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "out.csv"]

    parquet = pq.read_table(written["new/out.parquet"])
    assert parquet.column_names == ["clk", "user_id", "hist_item_id", "price", "logits", "probs"]
    assert parquet["hist_item_id"].to_pylist() == table["hist_item_id"].to_pylist()
    assert parquet["user_id"].to_pylist() == table["user_id"].to_pylist()
    np.testing.assert_allclose(parquet["probs"].to_numpy(), expected, rtol=0, atol=1e-6)

    text = pd.read_csv(written["out.csv"], dtype={"hist_item_id": str}, keep_default_na=False)
    assert list(text) == parquet.column_names
    assert list(text["hist_item_id"]) == [",".join(map(str, cell)) for cell in table["hist_item_id"].to_pylist()]
    np.testing.assert_allclose(text["probs"], expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(text["price"], table["price"].to_numpy(), rtol=1e-6)


def test_predictions_to_choice(trained: Trained, data: Path, tmp_path: Path) -> None:
    model_dir, _ = trained
    rows = pq.read_table(data / "eval").slice(0, 5)
    # What an empty cell is, and rows without labels, as they come when nobody knows yet.
    rows = rows.drop_columns(["clk", "buy"]).set_column(
        rows.drop_columns(["clk", "buy"]).column_names.index("pid"), "pid", pa.array([None, 1, None, 2, 3], pa.int64())
    )
    pq.write_table(rows, tmp_path / "in.parquet")
    run = command(
        "predict", "--model_dir", model_dir, "--input_path", tmp_path / "in.parquet", "--output_path",
        tmp_path / "out.txt", "--reserved_cols", "pid", "--output_cols", "probs", "--output_sep", r"\x01",
        "--with_header", "false",
    )  # fmt: skip
    assert run.code == 0, run.err
    cells = [line.split("\x01") for line in (tmp_path / "out.txt").read_text().splitlines()]
    assert [cell[0] for cell in cells] == ["", "1", "", "2", "3"]
    assert all(len(cell) == 2 and 0 < float(cell[1]) < 1 for cell in cells)


def test_check_says_what_a_config_describes(data: Path, tmp_path: Path) -> None:
    run = command("check", *small(CONFIG, data, tmp_path / "m"), "--rows", "300")
    assert run.code == 0, run.err
    for title in ("Data flow", "Features", "Embedding tables", "Groups", "Parameters", "First rows", "Findings"):
        assert title in run.out
    lines = run.out.splitlines()
    (item,) = [line.split() for line in lines if line.startswith("item_id") and "item, " not in line][:1]
    assert item[:4] == ["item_id", "IdFeature", "item_id", "item"]
    assert any(line.split()[:3] == ["item_id", "500", "16"] and "hist_item_id" in line for line in lines)
    assert "rows that could not be read" in run.out
    assert "***" in run.out  # user_id is private
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("*.config")), ids=lambda path: path.stem)
def test_sample_configs_check_without_data(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = command("check", sample)
    assert run.code == 0, run.err
    assert "Embedding tables" in run.out
    assert "First rows" not in run.out
    assert run.err.count("warning:") == 1, run.err
    assert "not looked at" in run.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("model", ["din", "dssm", "dbmtl", "deepfm"])
def test_the_other_sample_configs_train(model: str, data: Path, tmp_path: Path) -> None:
    run = command("train", *small(SAMPLES / f"{model}_taobao.config", data, tmp_path / "m"))
    assert run.code == 0, run.err
    for name, more in (
        ("evaluate", []),
        ("export", ["--export_dir", tmp_path / "exports"]),
        ("predict", ["--input_path", f"{data}/eval/*.parquet", "--output_path", tmp_path / "out.parquet"]),
    ):
        run = command(name, "--model_dir", tmp_path / "m", *more)
        assert run.code == 0, run.err
    frame = pq.read_table(data / "eval").to_pandas()
    expected = Predictor(tmp_path / "exports").predict(frame)
    found = pq.read_table(tmp_path / "out.parquet")
    for name in found.column_names:
        values = np.stack(found[name].to_pylist()) if found[name].type != pa.string() else None
        if values is not None:
            np.testing.assert_allclose(values, expected[name], rtol=0, atol=1e-5, err_msg=name)
