"""`python -m easyrec_lite.hpo` from the command line to what it leaves."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_runs import ROOT, Run, command, refused
from training_runs import SMALL, write_rows

from easyrec_lite import _arguments, _runs, _training
from easyrec_lite.checkpoints import latest
from easyrec_lite.config import load_config

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
UNITS = "model_config.multi_tower.towers[all].dnn.hidden_units"
SPACE = f"""
objectives {{ metric: "auc" }}
parameters {{ name: "units" path: "{UNITS}" values: ["[4]", "[6]", "[8, 4]"] }}
parameters {{ name: "rate" float_range {{ low: 1e-3 high: 1e-1 log: true }}
  path: "train_config.optimizer_config[0].adam_optimizer.learning_rate.constant_learning_rate.learning_rate" }}
parameters {{ name: "width" path: "features[*].embedding_dim" int_range {{ low: 0 high: 4 step: 4 }} }}
optional_features: "tags"
pruner {{ name: "NopPruner" }}
"""


@dataclass(frozen=True)
class Workspace:
    """A folder with a base config, rows and a space."""

    path: Path

    def flags(self, *more: object) -> list[object]:
        """The command's flags."""
        return ["--config", self.path / "base.config", "--space", self.path / "space.config", *more]

    @property
    def trials(self) -> list[dict[str, str]]:
        """The rows of trials.csv."""
        with open(self.path / "model_hpo" / "trials.csv", newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))


def workspace(path: Path, space: str = SPACE) -> Workspace:
    path.mkdir(parents=True, exist_ok=True)
    write_rows(path)
    paths = f'train_input_path: "{path}/train.csv"\neval_input_path: "{path}/eval.csv"\nmodel_dir: "{path}/model"\n'
    (path / "base.config").write_text(paths + SMALL.replace('model_dir: "model"\n', ""))
    (path / "space.config").write_text(space)
    return Workspace(path)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Run]:
    """A study of six trials; tests only read it."""
    work = workspace(tmp_path_factory.mktemp("hpo"))
    run = command("hpo", *work.flags("--trials", 6, "--seed", 4))
    assert run.code == 0, run.err
    return work, run


def test_every_trial_is_told_and_has_its_reason(searched: tuple[Workspace, Run]) -> None:
    work, run = searched
    trials = work.trials
    assert [row["trial"] for row in trials] == [str(number) for number in range(6)]
    assert {row["state"] for row in trials} == {"COMPLETE", "PRUNED"}
    for row in trials:
        if row["width"] == "0":
            assert row["state"] == "PRUNED"
            assert "impossible: " in row["reason"]
            assert ".embedding_dim: found nothing, expected the width" in row["reason"]
        else:
            assert 0 <= float(row["auc"]) <= 1
            assert float(row["evaluation.rows"]) == 50
    assert len(re.findall(r"^\d/6: trial \d", run.err, flags=re.MULTILINE)) == 6
    assert "Best: trial" in run.out


def test_the_best_config_trains_to_what_the_trial_reached(searched: tuple[Workspace, Run]) -> None:
    work, _ = searched
    path = work.path / "model_hpo" / "best.config"
    best = max((row for row in work.trials if row["state"] == "COMPLETE"), key=lambda row: float(row["auc"]))
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert head[0].startswith(f"# Trial {best['trial']} of the study 'base', 20")
    assert f"#   units = {best['units']}" in head
    assert any("tensorflow" in line and "optuna" in line for line in head)
    run = command("train", "--config", path)
    assert run.code == 0, run.err
    checkpoint = latest(work.path / "model_hpo" / "best")
    assert checkpoint is not None
    assert checkpoint.metrics is not None
    assert checkpoint.metrics["auc"] == pytest.approx(float(best["auc"]), abs=1e-12)


def test_the_best_parameters_are_easyrec_s_json(searched: tuple[Workspace, Run]) -> None:
    work, _ = searched
    out = work.path / "model_hpo"
    parameters = json.loads((out / "best_params.json").read_text())["param"]
    assert UNITS in parameters
    edits = _arguments.edits_from_file(str(out / "best_params.json"))
    mine = _runs.load(work.path / "base.config", [*edits, "model_dir=x"]).message
    assert mine == load_config(out / "best.config", ["model_dir=x"]).message


def test_the_report_needs_no_network(searched: tuple[Workspace, Run]) -> None:
    page = (searched[0].path / "model_hpo" / "report.html").read_text()
    for title in ("Best trial", "History", "Importance", "Parallel coordinates", "Slices", "Trials"):
        assert f"<h2>{title}" in page, title
    assert page.count("<svg") >= 5
    links = set(re.findall(r'(?:src|href|url)\s*[=(]\s*"?([^")\s>]+)', page))
    assert {link for link in links if not link.startswith(("#", "data:"))} == set()
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_only_the_best_model_is_kept(searched: tuple[Workspace, Run]) -> None:
    work, _ = searched
    best = max((row for row in work.trials if row["state"] == "COMPLETE"), key=lambda row: float(row["auc"]))
    assert [path.name for path in (work.path / "model_hpo" / "trials").iterdir()] == [f"{int(best['trial']):05d}"]


def test_the_command_again_adds_nothing(searched: tuple[Workspace, Run]) -> None:
    work, _ = searched
    before = work.trials
    run = command("hpo", *work.flags("--trials", 6, "--seed", 4))
    assert run.code == 0, run.err
    assert work.trials == before


@pytest.mark.parametrize(
    ("text", "flags", "expected"),
    [
        (SPACE.replace('"auc"', '"auk"'), [], "did you mean 'auc'?"),
        (SPACE.replace("towers[all]", "towers[al]"), [], "space.config:3:28: parameters[0].path[0]"),
        (SPACE.replace("NopPruner", "NoPruner"), [], "did you mean 'NopPruner'?"),
        (SPACE, ["--edit", "train_input_path=nowhere.csv"], "nowhere.csv"),
        (SPACE, ["--edit", 'eval_input_path=""'], "the rows that trials are judged by"),
        (SPACE, ["--edit", "train_config.num_steps=0", "--edit", "data_config.num_epochs=0"], "every trial must end"),
        (SPACE, ["--storage", "nonsense"], "--storage: found 'nonsense'"),
    ],
)
def test_what_would_end_every_trial_is_told_before_the_first(
    text: str, flags: list[str], expected: str, tmp_path: Path
) -> None:
    work = workspace(tmp_path, text)
    assert expected in refused(command("hpo", *work.flags("--trials", 2, *flags)))
    assert not (tmp_path / "model_hpo" / "trials").exists()


@pytest.mark.parametrize("missing", ["--config", "--space", "--trials"])
def test_flags_that_are_needed(missing: str, tmp_path: Path) -> None:
    flags = {"--config": "a.config", "--space": "s.config", "--trials": "3"}
    flags.pop(missing)
    assert f"{missing} is missing" in refused(command("hpo", *(word for pair in flags.items() for word in pair)))


# What a user imports reaches every worker: these trials end as their number of units says.
FAULTS = """
import os, signal
from easyrec_lite import _training
train = _training.train
def faulty(config, options):
    units = list(config.message.model_config.multi_tower.towers[0].dnn.hidden_units)
    if units == [2]:
        os.kill(os.getpid(), signal.SIGKILL)
    if units == [3]:
        raise MemoryError("32 GB wanted")
    if units == [4]:
        raise RuntimeError("no reason\\nbut this one")
    return train(config, options)
_training.train = faulty
"""


def test_a_trial_that_fails_or_takes_its_process_along_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(_training, "train", _training.train)  # put back what the module changes in this process
    (tmp_path / "hpo_faults.py").write_text(FAULTS)
    space = f"""objectives {{ metric: "auc" }} objectives {{ metric: "parameters" direction: MINIMIZE }}
    parameters {{ name: "units" path: "{UNITS}" values: ["[2]", "[3]", "[4]", "[5]", "[6]", "[500]"] }}
    limits {{ parameters: 2000 latency_ms: 10000 }} seeds_per_trial: 2 sampler {{ name: "GridSampler" }}"""
    work = workspace(tmp_path / "work", space)
    run = command("hpo", *work.flags("--trials", 6, "--import", "hpo_faults"))
    assert run.code == 0, run.err
    rows = {row["units"]: row for row in work.trials}
    assert "SIGKILL" in rows["[2]"]["reason"]
    assert "out of memory: 32 GB wanted" in rows["[3]"]["reason"]
    assert rows["[4]"]["reason"] == "RuntimeError: no reason"
    assert [rows[f"[{units}]"]["state"] for units in (2, 3, 4)] == ["FAIL"] * 3
    errors = "".join(path.read_text() for path in (work.path / "model_hpo" / "errors").glob("*.txt"))
    assert "but this one" in errors
    assert rows["[500]"]["state"] == "PRUNED"
    assert re.search(r"limits: parameters [\d,.e+]+ > 2,000", rows["[500]"]["reason"])
    for units in ("[5]", "[6]"):
        assert rows[units]["state"] == "COMPLETE"
        assert float(rows[units]["auc std_error"]) > 0
        assert float(rows[units]["parameters"]) < 2000
        assert float(rows[units]["costs.latency_ms"]) > 0
    assert list((work.path / "model_hpo" / "front").glob("*.config"))


# Tells which process works on which trial.
WATCH = """
import os
from easyrec_lite import _training
train = _training.train
def watched(config, options):
    with open(os.environ["HPO_LOG"], "a") as file:
        file.write(f"{os.environ['HPO_RUN']} {os.getpid()} {config.message.model_dir}\\n")
    return train(config, options)
_training.train = watched
"""


def _start(work: Workspace, run: int, total: int) -> subprocess.Popen[bytes]:
    flags = [str(flag) for flag in work.flags("--trials", total, "--workers", 2, "--import", "hpo_watch")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(work.path)]),
        "HPO_LOG": str(work.path / "log.txt"),
        "HPO_RUN": str(run),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "easyrec_lite.hpo", *flags],
        env=environment, cwd=work.path, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def _begun(work: Workspace) -> list[tuple[str, str, str]]:
    path = work.path / "log.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(run, pid, Path(model).parent.name) for run, pid, model in map(str.split, lines)]  # type: ignore[misc]


@pytest.mark.slow
def test_killed_five_times_the_study_has_the_trials_that_it_should_have(tmp_path: Path) -> None:
    total = 8
    space = SPACE.replace("low: 0 high: 4", "low: 4 high: 8")
    work = workspace(tmp_path, space)
    (tmp_path / "hpo_watch.py").write_text(WATCH)
    rng = random.Random(6)
    for run in range(5):
        process = _start(work, run, total)
        before, end = len(_begun(work)), time.monotonic() + 120
        while len(_begun(work)) == before and time.monotonic() < end:
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 4))
        if run % 2:
            os.kill(process.pid, signal.SIGKILL)  # the workers see that they are alone
        else:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        for pid in {int(pid) for number, pid, _ in _begun(work) if number == str(run)}:
            while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
                time.sleep(0.05)
            assert not Path(f"/proc/{pid}").exists()
    last = [_start(work, 5, total), _start(work, 5, total)]  # and two such commands at once
    for process in last:
        _, err = process.communicate(timeout=500)
        assert process.returncode == 0, err.decode()
    assert [row["trial"] for row in work.trials] == [str(number) for number in range(total)]
    assert {row["state"] for row in work.trials} == {"COMPLETE"}
    begun = _begun(work)
    assert {trial for *_, trial in begun} == {f"{number:05d}" for number in range(total)}
    # Within a run that was not killed, nobody began what another had begun.
    assert max(Counter((run, trial) for run, _, trial in begun).values()) == 1
