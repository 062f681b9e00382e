"""Train, evaluate, predict and export from Python, and that commands agree."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from notebook_rows import CONFIG

import easyrec_lite as er
from easyrec_lite import evaluate, insight, predict


def command(main: object, *arguments: object) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = main([str(argument) for argument in arguments])  # type: ignore[operator]
    assert code == 0, out.getvalue()
    return out.getvalue()


def test_importing_it_loads_no_tensorflow() -> None:
    code = (
        "import sys, easyrec_lite as er; dir(er); er.ConfigError;"
        "loaded = {'tensorflow', 'keras', 'pandas', 'matplotlib'} & set(sys.modules); assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_names_that_are_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Experimant'"):
        er.Experimant  # type: ignore[attr-defined]  # noqa: B018
    assert {"Experiment", "load_config", "explain", "compare"} <= set(dir(er))


def test_files_and_frames_train_the_same_model(
    trained: er.Experiment, rows: pd.DataFrame, later: pd.DataFrame, tmp_path: Path
) -> None:
    """Also in another folder, and by the commands' own reading of Parquet."""
    rows.to_parquet(tmp_path / "train.parquet")
    later.to_parquet(tmp_path / "eval.parquet")
    experiment = er.Experiment(CONFIG, model_dir=tmp_path / "model")
    metrics = experiment.train(tmp_path / "train.parquet", str(tmp_path / "eval.parquet"), progress=False)
    assert dict(metrics) == dict(trained.metrics)
    assert metrics["auc"] > 0.75
    assert experiment.result is not None
    assert experiment.result.step == 60

    command(evaluate.main, "--model_dir", tmp_path / "model")
    out = tmp_path / "out.parquet"
    command(
        predict.main, "--model_dir", tmp_path / "model", "--input_path", tmp_path / "eval.parquet", "--output_path", out
    )
    by_command = pd.read_parquet(out)
    frame = er.Experiment.open(tmp_path / "model").predict(later, keep=["item"])
    assert list(frame.columns) == ["item", *by_command.columns]
    np.testing.assert_array_equal(frame["probs"], by_command["probs"])

    shown = command(
        insight.main, "--model_dir", tmp_path / "model", "--importance", "--repeats", 1, "--neighbours", "item=3",
        "--compare", tmp_path / "model", "--samples", 20, "--explain", "--curves", "--out", tmp_path / "report.html",
    )  # fmt: skip
    by_face = experiment.importance(repeats=1).frame
    assert f"{by_face['drop'][0]:.6g}" in shown
    report = (tmp_path / "report.html").read_text()
    for title in ("Data flow", "Learning curves", "Importance", "Neighbours of item=3", "Comparison"):
        assert f"<h2>{title}" in report
    assert "http" not in report.replace("http://www.w3.org", "")


def test_predictions_keep_the_index(trained: er.Experiment, later: pd.DataFrame) -> None:
    some = later.iloc[[5, 3, 9]].set_axis(["a", "b", "c"]).drop(columns="click")
    frame = trained.predict(some, batch_size=2)
    assert frame.index.tolist() == ["a", "b", "c"]
    whole = trained.predict(later)
    np.testing.assert_allclose(frame["probs"], whole["probs"].iloc[[5, 3, 9]], rtol=1e-6)


def test_no_row_is_left_out_of_predictions(trained: er.Experiment, later: pd.DataFrame) -> None:
    wrong = later.head(3).astype({"noise": object})
    wrong["noise"] = ["1", "2", "many"]
    with pytest.raises(er.UserError, match="many"):
        trained.predict(wrong)


def test_private_values_stay_out_of_errors(trained: er.Experiment, later: pd.DataFrame) -> None:
    """`user` is private: neither a cell that can't be read nor a column that pandas mixed is shown."""
    wrong = later.head(3).astype({"user": object})
    wrong["user"] = ["1", "2", "s3cret"]
    with pytest.raises(er.UserError, match="column 'user'") as caught:
        trained.predict(wrong)
    assert "s3cret" not in str(caught.value)
    wrong["user"] = [1, 2, "s3cret"]
    with pytest.raises(er.UserError, match="column 'user': found mixed types; expected one type") as caught:
        trained.predict(wrong)
    assert "s3cret" not in str(caught.value)


def test_going_on_and_starting_over(rows: pd.DataFrame, later: pd.DataFrame, tmp_path: Path) -> None:
    config = er.load_config(text=CONFIG)
    config.edit("train_config.num_steps=4", "train_config.save_checkpoints_steps=2")
    experiment = er.Experiment(config, model_dir=tmp_path / "model")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "notes.txt").write_text("mine")
    with pytest.raises(er.UserError):
        _ = experiment.metrics
    assert not experiment.trained
    experiment.train(rows, later, progress=False)
    with pytest.raises(er.UserError, match=r"train\(resume=True\).*train\(replace=True\)"):
        experiment.train(rows, later, progress=False)
    experiment.config["train_config.num_steps"] = 6
    assert experiment.train(rows, later, resume=True, progress=False).step == 6
    again = er.Experiment(experiment.config)
    again.train(rows, later, progress=False)
    assert dict(again.metrics) == dict(experiment.metrics)  # in two pieces as in one
    first = dict(experiment.metrics)
    logs = [tmp_path / "model" / name for name in ("alarms.jsonl", "published.jsonl")]
    for log in logs:
        log.write_text("")  # as the monitor and the publisher of a stream leave them
    experiment.train(rows, later, replace=True, progress=False)
    assert not any(log.exists() for log in logs)
    assert dict(experiment.metrics) == first
    assert (tmp_path / "model" / "notes.txt").read_text() == "mine"
    with pytest.raises(er.UserError, match="at most one"):
        experiment.train(rows, resume=True, replace=True)


def test_exports_predict_the_same(trained: er.Experiment, later: pd.DataFrame, tmp_path: Path) -> None:
    from easyrec_lite.serving import Predictor

    path = trained.export(tmp_path / "exported")
    served = Predictor(path).predict(later.head(20))
    np.testing.assert_allclose(served["probs"], trained.predict(later.head(20))["probs"], atol=1e-5)


def test_rows_must_be_named() -> None:
    experiment = er.Experiment(CONFIG)
    with pytest.raises(er.ConfigError, match="train_input_path"):
        experiment.train(progress=False)
    with pytest.raises(er.UserError, match="no eval_input_path"):
        experiment.rows()


def test_opening_what_was_not_trained(tmp_path: Path) -> None:
    with pytest.raises(er.UserError, match=r"found no pipeline\.config"):
        er.Experiment.open(tmp_path)


def test_parameters_need_no_training(trained: er.Experiment) -> None:
    view = er.Experiment(CONFIG).parameters
    tables = view.frame[view.frame["kind"] == "table"].set_index("name")["weights"]
    assert tables.to_dict() == {"user": 160, "item": 80, "word": 400, "noise": 20}
    in_layers = sum(int(np.prod(variable.shape)) for variable in trained.model.trainable_variables)
    assert view.frame[view.frame["kind"] == "layer"]["weights"].sum() == in_layers
