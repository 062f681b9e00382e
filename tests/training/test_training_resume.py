"""A run that was killed and goes on ends as if nothing had happened; what must not change is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import rows
from training_runs import SMALL, KillAt, Killed, config, journal, left_behind, run, tensors

from easyrec_lite import _training
from easyrec_lite.checkpoints import CheckpointError, Files, latest
from easyrec_lite.config import ConfigError
from easyrec_lite.errors import UserError
from easyrec_lite.training import Callback, Trainer, training_tensors


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    model_dir = tmp_path_factory.mktemp("uninterrupted") / "model"
    run(config(data, model_dir))
    return model_dir


def test_killed_again_and_again(data: Path, tmp_path: Path, uninterrupted: Path) -> None:
    """Before the first checkpoint, between two, in another epoch, and at the last step."""
    for place, step in enumerate((3, 6, 13, 18)):
        with pytest.raises(Killed):
            run(config(data, tmp_path / "m"), resume=place > 0, callbacks=[KillAt(step)])
    result = run(config(data, tmp_path / "m"), resume=True)
    assert (result.step, result.rows) == (19, 300 - 16 * 16)
    assert left_behind(tmp_path / "m") == left_behind(uninterrupted)


@pytest.mark.parametrize("place", ["checkpoint", "statistics", "journal"])
def test_killed_while_the_last_files_are_written(data: Path, tmp_path: Path, uninterrupted: Path, place: str) -> None:
    """The step that is saved last is not saved again, and still nothing of it may be lost."""
    operation, name = {
        "checkpoint": ("rename", ".step-000000000019"),
        "statistics": ("rename", "statistics.json"),
        "journal": ("sync", "metrics.jsonl"),
    }[place]
    files = Files(kill_at(operation, name, after="" if place == "journal" else "step-000000000019"))
    with pytest.raises(Killed):
        run(config(data, tmp_path / "m"), files=files)
    run(config(data, tmp_path / "m"), resume=True)
    assert left_behind(tmp_path / "m") == left_behind(uninterrupted)


def test_killed_while_an_old_checkpoint_is_removed(data: Path, tmp_path: Path, uninterrupted: Path) -> None:
    edits = ["train_config.keep_checkpoint_max=1", "eval_input_path="]
    with pytest.raises(Killed):
        run(config(data, tmp_path / "m", *edits), files=Files(kill_at("remove", "", after="step-000000000019")))
    result = run(config(data, tmp_path / "m", *edits), resume=True)
    assert result.rows == 0
    assert tensors(latest(tmp_path / "m")) == tensors(latest(uninterrupted))
    assert not list((tmp_path / "m" / "checkpoints").glob(".*"))


def kill_at(operation: str, name: str, after: str) -> Callable[[str, Path], None]:
    """Kills at the first `operation` on a file whose name holds `name`, once a path that holds `after` was seen."""
    seen: list[Path] = []

    def on_call(called: str, path: Path) -> None:
        if after in str(path):
            seen.append(path)
        if seen and called == operation and name in path.name:
            raise Killed(path)

    return on_call


def test_a_finished_run_stays_as_it_is(data: Path, tmp_path: Path, uninterrupted: Path) -> None:
    first = run(config(data, tmp_path / "m"))
    again = run(config(data, tmp_path / "m"), resume=True)
    assert (again.step, again.rows, again.stopped_by) == (19, 0, "end of data")
    assert (again.metrics, again.checkpoint.path) == (first.metrics, first.checkpoint.path)
    assert left_behind(tmp_path / "m") == left_behind(uninterrupted)


def test_going_on_for_more_steps(data: Path, tmp_path: Path, uninterrupted: Path) -> None:
    run(config(data, tmp_path / "m", "train_config.num_steps=7"))
    run(config(data, tmp_path / "m", "train_config.num_steps=0"), resume=True)
    assert tensors(latest(tmp_path / "m")) == tensors(latest(uninterrupted))
    assert [r["step"] for r in journal(tmp_path / "m") if r["kind"] == "train"] == list(range(2, 19, 2))


def test_resuming_where_nothing_is_yet(data: Path, tmp_path: Path, uninterrupted: Path) -> None:
    run(config(data, tmp_path / "m"), resume=True)
    assert left_behind(tmp_path / "m") == left_behind(uninterrupted)


def test_a_new_run_needs_an_empty_directory(data: Path, uninterrupted: Path) -> None:
    before = left_behind(uninterrupted)
    with pytest.raises(UserError, match=r"holds a trained model already\. Go on with it by --continue_train"):
        run(config(data, uninterrupted))
    assert left_behind(uninterrupted) == before


@pytest.mark.parametrize(
    ("edit", "path"),
    [
        ("features[user].embedding_dim=8", "features[user].embedding_dim"),
        ("data_config.batch_size=8", "data_config.batch_size"),
        ("train_config.seed=7", "train_config.seed"),
        ("model_config.multi_tower.final_dnn.hidden_units=[5]", "model_config.multi_tower.final_dnn.hidden_units"),
    ],
)
def test_a_changed_config_is_refused(data: Path, uninterrupted: Path, edit: str, path: str) -> None:
    with pytest.raises(ConfigError) as raised:
        run(config(data, uninterrupted, edit), resume=True)
    problems = {problem.path: problem for problem in raised.value.problems}
    assert any(found.startswith(path) for found in problems), problems
    assert all(problem.file for problem in problems.values())


def test_other_rows_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(config(data, tmp_path / "m"), callbacks=[KillAt(6)])
    rows(90, seed=3).to_csv(tmp_path / "train.csv", index=False)
    with pytest.raises(UserError, match=r"train\.csv|train_input_path|files"):
        run(config(data, tmp_path / "m", f"train_input_path={tmp_path / 'train.csv'}"), resume=True)


def test_another_machine_is_warned_of(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edits = ["train_config.num_steps=4", "eval_input_path="]
    run(config(data, tmp_path / "m", *edits))
    run(config(data, tmp_path / "m", *edits), resume=True)
    assert "Resuming with" not in capsys.readouterr().err
    other = {**_training.training_environment(), "threads": {"inter_op": 64, "intra_op": 2}}
    monkeypatch.setattr(_training, "training_environment", lambda: other)
    run(config(data, tmp_path / "m", *edits), resume=True)
    said = capsys.readouterr().err
    assert "Resuming with other software or hardware" in said
    assert "threads" in said


def test_evaluation_may_be_added(data: Path, tmp_path: Path) -> None:
    run(config(data, tmp_path / "m", "eval_input_path=", "train_config.num_steps=4"))
    result = run(config(data, tmp_path / "m", "train_config.num_steps=8"), resume=True)
    assert result.metrics["rows"] == 50


# ---- fine tuning


class Start(Callback):
    """Remembers the tensors with which a run starts."""

    def on_start(self, trainer: Trainer) -> None:
        self.tensors: dict[str, Any] = {
            tensor.name: np.array(tensor.read(0, tensor.shape[0] if tensor.shape else 1))
            for tensor in training_tensors(trainer.stepper)
        }


def started_from(data: Path, model_dir: Path, *edits: str, text: str = SMALL) -> dict[str, Any]:
    start = Start()
    edits = ("train_config.num_steps=1", "eval_input_path=", *edits)
    run(config(data, model_dir, *edits, text=text), callbacks=[start])
    return start.tensors


def test_fine_tuning_takes_the_weights_only(data: Path, tmp_path: Path, uninterrupted: Path) -> None:
    found = started_from(data, tmp_path / "m", f"train_config.fine_tune_checkpoint={uninterrupted}")
    checkpoint = latest(uninterrupted)
    for name, values in found.items():
        there = checkpoint.read(name).reshape(values.shape)
        if name.startswith("dense/") or name.endswith("/weights"):
            np.testing.assert_array_equal(values, there, err_msg=name)
        elif name.startswith(("optimizer/dense_adam/", "embeddings/")) and "learning_rate" not in name:
            assert not values.any(), name
    assert found["training/step"] == 0


def test_fine_tuning_another_shape(data: Path, tmp_path: Path, uninterrupted: Path) -> None:
    text = SMALL.replace('input_names: "user" num_buckets: 12', 'input_names: "user" num_buckets: 15')
    there = latest(uninterrupted).read("embeddings/user/weights")
    edit = f"train_config.fine_tune_checkpoint={uninterrupted}"
    plain = started_from(data, tmp_path / "a", edit, text=text)["embeddings/user/weights"]
    padded = started_from(data, tmp_path / "b", edit, "train_config.force_restore_shape_compatible=true", text=text)[
        "embeddings/user/weights"
    ]
    assert not np.array_equal(plain[:12], there)
    np.testing.assert_array_equal(padded[:12], there)
    assert not padded[12:].any()


def test_fine_tuning_by_a_map_of_names(data: Path, tmp_path: Path, uninterrupted: Path) -> None:
    text = SMALL.replace('input_names: "user" num', 'feature_name: "member" input_names: "user" num')
    text = text.replace('["user", "age", "tags"]', '["member", "age", "tags"]')
    (tmp_path / "names.txt").write_text("embeddings/member/weights embeddings/user/weights  # renamed\n")
    edits = [f"train_config.fine_tune_checkpoint={uninterrupted}"]
    edits.append(f"train_config.fine_tune_ckpt_var_map={tmp_path / 'names.txt'}")
    found = started_from(data, tmp_path / "m", *edits, text=text)
    np.testing.assert_array_equal(
        found["embeddings/member/weights"], latest(uninterrupted).read("embeddings/user/weights")
    )


def test_fine_tuning_from_nothing(data: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a checkpoint of easyrec_lite"):
        started_from(data, tmp_path / "m", f"train_config.fine_tune_checkpoint={tmp_path / 'nowhere'}")
    assert not (tmp_path / "m").exists()
