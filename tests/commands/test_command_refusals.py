"""What people get wrong: a message that says what and where, exit code 2, no traceback, and nothing left behind."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from command_runs import SAMPLES, Run, Workspace, command, refused
from config_damage import MUTATIONS

from easyrec_lite import _training
from easyrec_lite.errors import UserError

Trained = tuple[Workspace, Run]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--confg", "x"], "unknown: --confg x"),
        (["train", "x.config"], "unknown: x.config"),
        (["train"], "Which config? Say --config x.config"),
        (["evaluate"], "Which config?"),
        (["check"], "Which config?"),
        (["train", "--config", "nowhere.config"], "nowhere.config:1:1: found no readable file: No such file"),
        (["check", "."], "Is a directory"),
        (["train", "--config", "x", "--continue_train", "perhaps"], "expected true or false, found 'perhaps'"),
        (["train", "--config", "x", "--edit_config_json", "{"], "--edit_config_json: found text that is no JSON"),
        (["train", "--config", "x", "--edit_config_json", "[]"], "expected a JSON object"),
        (["train", "--config", "x", "--hpo_param_path", "no.json"], "no.json: can't be read"),
        (["predict", "--config", "x"], "required: --input_path, --output_path"),
        (["export", "--config", "x"], "required: --export_dir"),
    ],
)
def test_flags(arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(command(*arguments))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--edit", "train_confg.seed=1"], "did you mean 'train_config'?"),
        (["train", "--edit", "train_config.seed=-1"], "train_config.seed: found"),
        (["train", "--edit", "train_config.seed"], "train_config.seed"),
        (["train", "--edit", "features[agee].embedding_dim=1"], "did you mean 'age'?"),
        (["train", "--edit", "train_input_path=nowhere/*.txt"], "nowhere/*.txt"),
        (
            ["train", "--edit", "train_input_path="],
            "train_input_path: found nothing, expected the files, or kafka_train_input, to train on",
        ),
        (["train", "--edit", "model_dir="], "model_dir"),
        (["train", "--edit", "eval_input_path=nowhere.txt"], "nowhere.txt"),
        (["train", "--edit", "data_config.separator=,"], "data_config"),
        (["train", "--edit", "data_config.with_header=true"], "column 'clk', not in"),
        (["train", "--edit", "data_config.input_type=ParquetInput"], "train.txt"),
        (["train", "--edit", "train_config.num_steps=0", "--edit", "data_config.num_epochs=0"], "no end of training"),
        (["train", "--fine_tune_checkpoint", "nowhere"], "nowhere"),
        (["train", "--export_config.asset_files=gone.txt"], "export_config.asset_files[0]: found no file 'gone.txt'"),
        (
            ["train", "--export_config.exporter_type=best", "--export_config.best_exporter_metric=auk"],
            "export_config.best_exporter_metric: found the unknown metric 'auk', expected auc",
        ),
        (["evaluate"], "model"),
        (["evaluate", "--eval_input_path", "nowhere.txt", "--checkpoint_path", "nowhere"], "nowhere"),
        (["export", "--export_dir", "out"], "model"),
        (["predict", "--input_path", "a", "--output_path", "out.csv"], "model"),
        (["check", "--rows", "0"], "--rows: found '0'; expected a whole number of at least 1"),
        (["check", "--edit", "data_config.label_fields[0]=klick"], "klick"),
    ],
)
def test_configs_paths_and_columns(
    work: Workspace, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert message in refused(work.run(*arguments))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_model_directory_in_use(easyrec: Trained) -> None:
    work, _ = easyrec
    before = {path: path.stat().st_mtime_ns for path in work.model_dir.rglob("*")}
    message = refused(work.run("train"))
    assert f"{work.model_dir} holds a trained model already" in message
    assert "--continue_train" in message
    assert {path: path.stat().st_mtime_ns for path in work.model_dir.rglob("*")} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output_cols", "prob"], "--output_cols: the model has no ['prob']; it predicts ['logits', 'probs']"),
        (["--reserved_cols", "nobody"], "nobody"),
        (["--output_sep", "||"], "--output_sep: found '||'; expected one character"),
        (["--batch_size", "0"], "--batch_size: found '0'; expected a whole number of at least 1"),
        (["--batch_size", "many"], "--batch_size"),
        (["--output_path", ""], "--output_path: found nothing; expected a file to write"),
        (["--output_path", "."], "--output_path: found the folder .; expected a file to write"),
        (["--input_path", "nowhere.txt"], "nowhere.txt"),
        (["--checkpoint_path", "nowhere"], "nowhere"),
    ],
)
def test_predict(easyrec: Trained, arguments: list[str], message: str, tmp_path: Path) -> None:
    work, _ = easyrec
    paths = ["--input_path", work.path / "eval.txt", "--output_path", tmp_path / "out.csv"]
    if "--input_path" in arguments:
        paths = paths[2:]
    assert message in refused(work.run("predict", *paths, *arguments))
    assert list(tmp_path.iterdir()) == []


def _no_rows(work: Workspace) -> None:
    (work.path / "train.txt").write_text("")


def _torn(work: Workspace) -> None:
    path = work.path / "train.txt"
    path.write_bytes(gzip.compress(path.read_bytes() * 20)[:300])


def _binary(work: Workspace) -> None:
    (work.path / "train.txt").write_bytes(random.Random(1).randbytes(5000))


def _label_of_2(work: Workspace) -> None:
    path = work.path / "train.txt"
    path.write_text("2" + path.read_text()[1:])


def _wide_rows(work: Workspace) -> None:
    path = work.path / "train.txt"
    path.write_text(path.read_text().replace("\n", ";more\n"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_no_rows, "train.txt"),
        (_torn, "train.txt"),
        (_binary, "train.txt"),
        (_wide_rows, "train.txt"),
        (_label_of_2, "Label column clk: found a value outside of 0 .. 1; expected 0 or 1"),
    ],
)
def test_damaged_rows(work: Workspace, damage: Callable[[Workspace], None], message: str) -> None:
    damage(work)
    assert message in refused(work.run("train", "--export_config.exporter_type=none"))


def test_labels_of_text(work: Workspace) -> None:
    path = work.path / "train.txt"
    path.write_text(path.read_text().replace("\n1;", "\nyes;"))
    as_text = "--data_config.input_fields[clk].input_type=STRING"
    message = refused(work.run("train", as_text, "--export_config.exporter_type=none"))
    assert "Label column clk: found a value that is no finite number" in message


def test_too_many_bad_rows(work: Workspace) -> None:
    path = work.path / "train.txt"
    lines = path.read_text().splitlines()
    for place in range(0, len(lines), 10):
        cells = lines[place].split(";")
        lines[place] = ";".join([*cells[:3], "old", "secret-user", cells[5]])
    path.write_text("\n".join(lines))
    private = "--data_config.input_fields[user_id].private=true"
    message = refused(work.run("train", private, "--train_config.num_steps=0", "--data_config.num_epochs=1"))
    assert "data_config.max_bad_row_share: found 20 unusable rows among 200 (10.00%)" in message
    assert "expected at most 1.00%" in message
    assert "column 'age': 'old' is not a whole number" in message
    kept = work.model_dir / "bad_rows.jsonl"
    assert str(kept) in message
    records = [json.loads(line) for line in kept.read_text().splitlines()]
    assert [record["line"] for record in records] == list(range(1, 200, 10))
    assert records[0]["cells"]["user_id"] == "***"
    assert "secret-user" not in kept.read_text() + message


@pytest.mark.parametrize("command_name", ["evaluate", "export", "predict", "train"])
def test_a_damaged_checkpoint(easyrec: Trained, command_name: str, tmp_path: Path) -> None:
    work, _ = easyrec
    model_dir = tmp_path / "model"
    for file in work.model_dir.rglob("checkpoints/*/*"):
        target = model_dir / file.relative_to(work.model_dir)
        target.parent.mkdir(parents=True, exist_ok=True)
        content = file.read_bytes()
        target.write_bytes(content if file.suffix == ".json" else bytes(byte ^ 1 for byte in content))
    flags = {
        "evaluate": [],
        "export": ["--export_dir", tmp_path / "exports"],
        "predict": ["--input_path", work.path / "eval.txt", "--output_path", tmp_path / "out.csv"],
        "train": ["--continue_train"],
    }
    message = refused(work.run(command_name, "--model_dir", model_dir, *flags[command_name]))
    assert str(model_dir / "checkpoints") in message
    assert {path.name for path in tmp_path.iterdir()} <= {"model", "exports"}
    assert not list(tmp_path.glob("exports/*"))


def test_a_hundred_damaged_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sample configs with fields dropped, misspelt, mistyped and out of range, through `train`."""
    monkeypatch.chdir(tmp_path)

    def valid(*_: object) -> None:
        raise UserError("this config is fine")

    monkeypatch.setattr(_training, "train", valid)
    samples = sorted(SAMPLES.glob("*.config"))
    names = ["drop a line", "misspell", "wrong type", "out of range"]
    wrong = fine = 0
    while wrong < 100:
        number = wrong + fine
        mutate, _ = MUTATIONS[names[number % len(names)]]
        text = mutate(samples[number % len(samples)].read_text(), random.Random(number))
        Path("x.config").write_text(text)
        message = refused(command("train", "--config", "x.config"))
        head, *problems = [line for line in message.splitlines() if not re.match(r"warning: |.*: warning: ", line)]
        if head == "error: this config is fine":
            fine += 1  # such as one without a field that has a default
            continue
        wrong += 1
        assert re.fullmatch(r"error: \d+ problems? in the config", head), message
        assert problems
        for problem in problems:
            assert re.match(r"  x\.config:\d+:\d+: .*found ", problem), message
        assert [path.name for path in tmp_path.iterdir()] == ["x.config"]
    assert fine < 40
