"""EasyRec's flags and config files, and the exports that training makes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from command_runs import EASYREC, Run, Workspace, command, easyrec_rows, refused

from easyrec_lite.checkpoints import latest
from easyrec_lite.config import load_config
from easyrec_lite.serving import Predictor, exported_step, versions


def completed(model_dir: Path):
    return load_config(model_dir / "pipeline.config").message


def test_an_easyrec_config_trains_evaluates_and_serves(easyrec: tuple[Workspace, Run], tmp_path: Path) -> None:
    work, run = easyrec
    assert "Trained MultiTower: step 6, num_steps" in run.out
    config = completed(work.model_dir)
    assert [feature.input_names[0] for feature in config.features] == ["user_id", "item_id", "age", "price", "tags"]
    evaluation = work.run("evaluate", "--eval_result_path", tmp_path / "result.json")
    assert evaluation.code == 0, evaluation.err
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["rows"] == 100
    assert result["auc"] == pytest.approx(latest(work.model_dir).metrics["auc"])

    predicted = work.run("predict", "--input_path", work.path / "eval.txt", "--output_path", tmp_path / "out.csv",
                         "--output_cols", "probs", "--with_header", "false")  # fmt: skip
    assert predicted.code == 0, predicted.err
    expected = np.loadtxt(tmp_path / "out.csv")
    # The one string holds the cells in the order of input_fields, labels left out.
    (version,) = versions(work.model_dir / "export" / "final")
    predictor = Predictor(version)
    assert [column.name for column in predictor.columns] == ["price", "tags", "age", "user_id", "item_id"]
    rows = [line.partition(";")[2] for line in easyrec_rows(100, seed=2)]
    np.testing.assert_allclose(predictor.predict(rows)["probs"], expected, rtol=0, atol=1e-6)


def test_flags_by_easyrecs_names(work: Workspace, easyrec: tuple[Workspace, Run], tmp_path: Path) -> None:
    trained, _ = easyrec
    tuned = tmp_path / "tuned.json"
    tuned.write_text(json.dumps({"param": {"model_config.embedding_regularization": 0.25}}))
    run = command(
        "train", "--pipeline_config_path", work.path / "easyrec.config", "--model_dir", tmp_path / "m",
        "--train_input_path", work.path / "train.txt", "--eval_input_path", work.path / "eval.txt",
        "--train_config.num_steps=2", "--data_config.batch_size", "16", "--hpo_param_path", tuned,
        "--edit_config_json", '{"train_config.seed": 9, "export_config.exporter_type": "none"}',
        "--fine_tune_checkpoint", trained.model_dir, "--continue_train", "false",
    )  # fmt: skip
    assert run.code == 0, run.err
    config = completed(tmp_path / "m")
    assert (config.train_config.num_steps, config.data_config.batch_size, config.train_config.seed) == (2, 16, 9)
    assert config.model_config.embedding_regularization == 0.25
    assert config.train_config.fine_tune_checkpoint == str(trained.model_dir)
    assert not (tmp_path / "m" / "export").exists()
    # Two small steps from the other run's weights, not from new ones.
    name = next(name for name in latest(tmp_path / "m").names() if name.endswith("multi_tower/user/0/kernel")
                or ("user" in name and name.endswith("kernel")))  # fmt: skip
    old, new = latest(trained.model_dir).read(name), latest(tmp_path / "m").read(name)
    assert 0 < np.abs(new - old).max() < 0.05


def test_training_goes_on(work: Workspace) -> None:
    off = ["--export_config.exporter_type=none"]
    assert work.run("train", *off, "--train_config.num_steps=3").code == 0
    run = work.run("train", *off, "--train_config.num_steps=5", "--continue_train")
    assert run.code == 0, run.err
    assert latest(work.model_dir).step == 5
    steps = [json.loads(line)["step"] for line in (work.model_dir / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    # A config of another run is not gone on with.
    message = refused(work.run("train", *off, "--continue_train", "--features[age].embedding_dim=8"))
    assert "features[age].embedding_dim: found 8" in message
    assert latest(work.model_dir).step == 5


def test_a_module_that_registers_a_model(work: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "house_models.py").write_text(
        "import keras\n"
        "from easyrec_lite.models import Model, register\n\n\n"
        '@register("HouseModel")\n'
        "class HouseModel(Model):\n"
        '    params_field = "model_params"\n\n'
        "    @classmethod\n"
        "    def check(cls, config):\n"
        "        return ()\n\n"
        "    def __init__(self, config, layouts):\n"
        "        super().__init__(config, layouts)\n"
        '        self.last = keras.layers.Dense(1, name="last")\n\n'
        "    def call(self, groups, training=False):\n"
        '        return self.tasks[0].predictions(self.last(groups["user"]))\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    start, end = EASYREC.index("  multi_tower {"), EASYREC.index("  embedding_regularization")
    text = EASYREC[:start] + "  model_params {}\n" + EASYREC[end:]
    (work.path / "easyrec.config").write_text(text.replace('"MultiTower"', '"HouseModel"'))
    assert "found 'HouseModel', expected the name of a model" in refused(work.run("check"))
    run = work.run("check", "--import", "house_models")
    assert run.code == 0, run.err
    assert "HouseModel" in run.out
    sys.modules.pop("house_models")
    assert "--import: found no module 'house_model'" in refused(work.run("check", "--import", "house_model"))


def test_a_config_in_a_flag_of_check(work: Workspace) -> None:
    run = command("check", "--config", work.path / "easyrec.config", "--edit", "train_input_path=")
    assert run.code == 0, run.err
    assert "(no training data)" in run.out


@pytest.mark.parametrize("kind", ["latest", "best", "none"])
def test_exporters(work: Workspace, kind: str) -> None:
    note = work.path / "note.txt"
    note.write_text("n")
    run = work.run("train", f"--export_config.exporter_type={kind}", "--export_config.exports_to_keep=2",
                   "--train_config.save_checkpoints_steps=2", f"--export_config.asset_files=n.txt:{note}")  # fmt: skip
    assert run.code == 0, run.err
    if kind == "none":
        assert not (work.model_dir / "export").exists()
        return
    directory = work.model_dir / "export" / kind
    kept = versions(directory)
    assert [path.name for path in kept] == sorted(path.name for path in directory.iterdir())
    assert all((path / "assets" / "n.txt").read_text() == "n" for path in kept)
    steps = [exported_step(path) for path in kept]
    records = [json.loads(line) for line in (work.model_dir / "metrics.jsonl").read_text().splitlines()]
    auc = {record["step"]: record["auc"] for record in records if record["kind"] == "evaluation"}
    assert list(auc) == [2, 4, 6]
    records_of_auc = [step for step in auc if all(auc[step] > auc[other] for other in auc if other < step)]
    assert steps == ([4, 6] if kind == "latest" else records_of_auc[-2:])
