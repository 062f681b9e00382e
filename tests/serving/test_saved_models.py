"""Exports: the same predictions as in training, and folders that a server can watch."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from exports import STEP, Exported, assert_same, columns_of, make, request_rows, served, trained_predictions
from tiny import load

from easyrec_lite.checkpoints import CheckpointError, save
from easyrec_lite.models import model_tensors
from easyrec_lite.serving import Predictor, export_model, exported_step, next_version, versions
from easyrec_lite.serving import export as export_module

Get = Callable[..., Exported]


def call(path: Path, columns: dict[str, tf.Tensor]) -> dict[str, np.ndarray]:
    """What stock TensorFlow predicts."""
    model = tf.saved_model.load(str(path))
    return {name: value.numpy() for name, value in model.signatures["serving_default"](**columns).items()}


@pytest.mark.parametrize(
    ("model", "lists"),
    [
        ("multi_tower", False),
        ("multi_tower", True),
        ("din", True),
        ("dssm", True),
        ("dssm_pointwise", False),
        ("dbmtl", True),
        ("deepfm", False),
        ("cross", False),
    ],
)
def test_exports_predict_what_the_trainer_predicts(exported: Get, model: str, lists: bool) -> None:
    export = exported(model, lists=lists)
    frame = request_rows(lists=lists)
    expected = trained_predictions(export.recommender, frame)
    columns = served(columns_of(export.recommender, frame))
    assert_same(call(export.path, columns), expected)
    predictor = Predictor(export.path)
    assert_same(predictor.predict(frame), expected)
    assert_same(predictor.predict(frame.to_dict("records"), batch_size=7), expected)
    assert [column.name for column in predictor.columns] == export.recommender.feature_columns
    assert {column.name for column in predictor.columns if column.separator} == (
        {"tags", "seen", "words"} & set(columns) if lists else set()
    )


def test_lists_keep_the_type_that_they_had_in_training(exported: Get) -> None:
    types = [f"data_config.input_fields[{name}].input_type=INT64" for name in ("seen", "tags")]
    export = exported("cross", *types, lists=True)
    frame = request_rows(lists=True)
    frame.at[0, "seen"] = [3, None, 2**62]
    expected = trained_predictions(export.recommender, frame)
    assert_same(call(export.path, served(columns_of(export.recommender, frame))), expected)
    predictor = Predictor(export.path)
    assert_same(predictor.predict(frame), expected)
    assert {c.name: c.items.name for c in predictor.columns if c.items} == {
        "seen": "int64",
        "tags": "int64",
        "words": "string",
    }
    single = exported("cross", *types, "export_config.multi_placeholder=false", lists=True)
    assert_same(Predictor(single.path).predict(frame), expected)
    # Not the same as text: what this test is about.
    text = served(columns_of(export.recommender, frame))
    batch = export.recommender.encode(text, targets=False)
    assert np.abs(export.recommender.predict(batch)["probs"] - expected["probs"]).max() > 1e-3


@pytest.mark.parametrize("lists", [False, True])
def test_what_training_ignores_is_ignored(exported: Get, lists: bool) -> None:
    ignored = {"user": 3, "price": 0.5, "seen": 2, "words": "b"}
    edits = [f"data_config.input_fields[{name}].ignore_val={value}" for name, value in ignored.items()]
    edits += [f"data_config.input_fields[{name}].default_val={value}" for name, value in (("user", 7), ("price", 30))]
    export = exported("cross", *edits, lists=lists)
    frame = request_rows(lists=lists)
    frame["user"], frame["price"] = [3, 4] * 20, [0.5, 0.5, 1.5, 1.5] * 10
    expected = trained_predictions(export.recommender, frame)
    predictor = Predictor(export.path)
    assert_same(predictor.predict(frame), expected)
    kept = frame.assign(user=[7, 4] * 20, price=[30.0, 30.0, 1.5, 1.5] * 10)
    assert_same(predictor.predict(kept), expected)
    plain = Predictor(exported("cross", lists=lists).path).columns
    assert {column.name for column in predictor.columns if column.ignore is not None} == set(ignored)
    assert not any(column.ignore is not None for column in plain)


def test_vectors_are_also_given_as_text(exported: Get) -> None:
    outputs = Predictor(exported("dssm", lists=True).path).predict(request_rows(6, lists=True))
    for side in ("user", "item"):
        read = [[float(number) for number in text.decode().split(",")] for text in outputs[f"{side}_emb"]]
        np.testing.assert_allclose(read, outputs[f"{side}_tower_emb"], atol=1e-5)


def test_tensorflow_1_loads_them(exported: Get) -> None:
    export = exported("multi_tower")
    frame = request_rows()
    columns = {name: value.numpy() for name, value in columns_of(export.recommender, frame).items()}
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta_graph = tf.compat.v1.saved_model.load(session, ["serve"], str(export.path))
        signature = meta_graph.signature_def["serving_default"]
        assert set(signature.inputs) == set(columns)
        outputs = session.run(
            {name: info.name for name, info in signature.outputs.items()},
            {signature.inputs[name].name: values for name, values in columns.items()},
        )
    assert_same(outputs, trained_predictions(export.recommender, frame))


def test_one_string_with_all_columns(exported: Get) -> None:
    export = exported("multi_tower", "export_config.multi_placeholder=false", lists=True)
    frame = request_rows(lists=True)
    expected = trained_predictions(export.recommender, frame)
    names = [column.name for column in Predictor(export.path).columns]
    cells = [["" if cell is None else "|".join(cell) if isinstance(cell, list) else str(cell) for cell in row]
             for row in frame[names].to_numpy()]  # fmt: skip
    texts = [",".join(row) for row in cells]
    found = call(export.path, {"features": tf.constant(texts)})
    assert_same(found, expected)
    predictor = Predictor(export.path)
    assert_same(predictor.predict(texts, batch_size=9), expected)
    assert_same(predictor.predict(frame), expected)
    # Cells left out at the end of a row are empty ones.
    assert_same(predictor.predict(["3,f,0.5"]), predictor.predict(["3,f,0.5,,,"]))


def test_an_export_says_what_it_is(exported: Get, tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("read me")
    export = make(tmp_path, "multi_tower", lists=True, asset=note)
    assets = export.path / "assets"
    assert (assets / "note.txt").read_text() == "read me"
    assert load((assets / "pipeline.config").read_text()).message == export.recommender.config
    description = json.loads((assets / "description.json").read_text())
    assert description["step"] == STEP == exported_step(export.path)
    assert description["metrics"] == {"auc": 0.625}
    assert {column["name"]: column["dtype"] for column in description["columns"]} == {
        "user": "int64",
        "gender": "string",
        "age": "float32",
        "tags": "string",
        "item": "int64",
        "price": "float32",
    }
    assert {"name": "tags", "inputs": ["tags"], "num_ids": 7, "side": "item"} in description["features"]
    assert [path.name for path in export.path.parent.iterdir()] == [export.path.name]
    # Nothing of the trainer's: no optimizer state, no step.
    variables = tf.train.list_variables(str(export.path / "variables" / "variables"))
    ours = sum(int(np.prod(tensor.shape)) for tensor in model_tensors(export.recommender))
    assert sum(int(np.prod(shape)) for name, shape in variables if "VARIABLE_VALUE" in name) < ours + 16


def test_versions_never_come_back(tmp_path: Path) -> None:
    assert abs(next_version(tmp_path) - time.time()) < 10
    now = int(time.time())
    for name in (str(now + 100), f".{now + 200}.trash", f"{now + 300}.bad", "notes"):
        (tmp_path / name).mkdir()
    (tmp_path / "17").write_text("no folder")
    assert next_version(tmp_path) == now + 301
    assert [path.name for path in versions(tmp_path)] == [str(now + 100)]
    (tmp_path / "9").mkdir()
    assert [path.name for path in versions(tmp_path)] == ["9", str(now + 100)]


@pytest.mark.parametrize("instant", ["before the graph", "after the graph", "among the assets"])
def test_a_failure_leaves_no_version(
    exported: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instant: str
) -> None:
    export = exported("multi_tower")
    target = tmp_path / "exports"

    def fail(*arguments: Any, **_: Any) -> None:
        assert not versions(target)
        if instant == "after the graph":
            Path(arguments[-1], "saved_model.pb").write_text("half")
        raise OSError(28, "No space left on device")

    if instant == "among the assets":
        monkeypatch.setattr(export_module.shutil, "copyfile", fail)
        monkeypatch.setattr(export_module.ServingModule, "save", lambda _, path: Path(path, "variables").mkdir())
    else:
        monkeypatch.setattr(export_module.ServingModule, "save", fail)
    with pytest.raises(OSError, match="No space"):
        export_model(
            export.recommender.config, export.checkpoint, target, config_text="", asset_files={"a": tmp_path / "a"}
        )
    assert list(target.iterdir()) == []


def test_a_checkpoint_that_says_nothing_of_the_columns(exported: Get, tmp_path: Path) -> None:
    export = exported("multi_tower")
    checkpoint = save(tmp_path, 1, model_tensors(export.recommender))
    with pytest.raises(CheckpointError, match=r"does not say how the columns .*'user'.*train once more"):
        export_model(export.recommender.config, checkpoint, tmp_path / "exports", config_text="")
    assert not (tmp_path / "exports").exists()


def test_a_checkpoint_of_another_model(exported: Get, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="dense/"):
        export_model(
            exported("deepfm").recommender.config, exported("multi_tower").checkpoint, tmp_path, config_text=""
        )
    assert list(tmp_path.iterdir()) == []
