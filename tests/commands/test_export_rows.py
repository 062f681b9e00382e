"""What the rows that exports are given leave behind: the parity report and the warm-up requests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from command_runs import Run, Workspace
from tensorflow_serving.apis import prediction_log_pb2

from easyrec_lite.serving import export as exporting
from easyrec_lite.serving import versions
from easyrec_lite.serving.warmup import WARMUP


def warm_up(version: Path) -> list[tuple[str, dict[str, np.ndarray]]]:
    """The requests: signatures, and inputs by name."""
    found = []
    for record in tf.data.TFRecordDataset(str(version / WARMUP)).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        found.append((request.model_spec.signature_name, inputs))
    return found


def parity(version: Path) -> dict[str, Any]:
    return json.loads((version / "assets" / "parity.json").read_text())


def test_the_exports_of_a_training(easyrec: tuple[Workspace, Run]) -> None:
    (version,) = versions(easyrec[0].model_dir / "export" / "final")
    assert parity(version)["passed"]
    assert parity(version)["rows"] == 100  # all of the evaluation data
    assert {name for name, _ in warm_up(version)} == {"serving_default", "serving_tiled"}


@pytest.mark.parametrize("as_text", [False, True])
def test_private_values_stay_in_the_data(easyrec: tuple[Workspace, Run], tmp_path: Path, as_text: bool) -> None:
    private = [f"--data_config.input_fields[{name}].private=true" for name in ("user_id", "price")]
    one = f"--export_config.multi_placeholder={str(not as_text).lower()}"
    run = easyrec[0].run("export", "--export_dir", tmp_path, one, *private)
    assert run.code == 0, run.err
    (version,) = versions(tmp_path)
    for signature, inputs in warm_up(version):
        if "features" in inputs:
            assert signature == "serving_default"
            for row in inputs["features"]:
                price, _, age, user, item = row.decode().split(";")
                assert (price, user) == ("1.5", "")
                assert age.isdecimal()
                assert item.isdecimal()
        else:
            assert set(inputs["user_id"]) == {b""}
            assert set(inputs["price"]) == {1.5}
            assert len(set(inputs["item_id"])) > 1 or len(inputs["item_id"]) == 1
    assert any("features" in inputs for _, inputs in warm_up(version)) == as_text
    assert parity(version)["rows"] == 100


def test_an_export_that_differs_is_not_written(work: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a training the user is told, and it goes on."""
    compare, calls = exporting.compare, []

    def differing(*arguments: Any, **more: Any) -> Any:
        report = compare(*arguments, **more)
        calls.append(report)
        if len(calls) == 2:
            report.differences[0].excess, report.differences[0].absolute = 3.0, 0.25
        return report

    monkeypatch.setattr(exporting, "compare", differing)
    run = work.run("train", "--export_config.exporter_type=latest", "--export_config.exports_to_keep=9",
                   "--train_config.save_checkpoints_steps=2")  # fmt: skip
    assert run.code == 0, run.err
    kept = versions(work.model_dir / "export" / "latest")
    assert [json.loads((path / "assets" / "description.json").read_text())["step"] for path in kept] == [2, 6]
    assert "the model of step 4 is not exported: The export does not predict what the trainer predicts" in run.err
    assert "differs by 0.25" in run.err


def test_rows_that_are_gone(work: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are gone when the training ends: it exports without them, and says so."""

    def gone(*arguments: Any) -> None:
        from easyrec_lite.inputs import InputError

        raise InputError("eval.txt", "no such file", "a file")

    monkeypatch.setattr("easyrec_lite._exporters.sample_rows", gone)
    run = work.run("train", "--export_config.exporter_type=latest")
    assert run.code == 0, run.err
    kept = versions(work.model_dir / "export" / "latest")
    assert kept
    assert not any((path / "assets" / "parity.json").exists() or (path / WARMUP).exists() for path in kept)
    told = "exports are not compared with the trainer, for want of rows: eval.txt: found no such file"
    assert run.err.count(told) == 1
