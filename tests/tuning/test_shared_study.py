"""A study that several processes share: each trial once, none lost; what is best; samplers and pruners."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from easyrec_lite.config import ConfigError
from easyrec_lite.errors import UserError
from easyrec_lite.tuning import (
    CONSTRAINTS,
    SharedStudy,
    Space,
    best_trials,
    is_feasible,
    read_space,
    reason_of,
)

CHOICES = """
parameters { name: "x" path: "train_config.num_steps" int_range { low: 1 high: 1000 } }
parameters { name: "kind" path: "model_config.model_name" values: ["a", "b"] }
parameters { name: "y" path: "data_config.batch_size" float_range { low: 0 high: 1 }
  when { parameter: "kind" one_of: "b" } }
"""
TOTAL = 12
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

# A process that takes trials and signals each before it works on it, for the test to kill it in between.
WORKER = """
import sys, time
from easyrec_lite.tuning import SharedStudy, read_space
url, path, total, pause = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
study = SharedStudy(url, "s", read_space(path), seed=3)
while (trial := study.take(total)) is not None:
    values = study.choose(trial)
    print(trial.number, flush=True)
    time.sleep(pause)
    study.complete(trial, [float(values["x"])])
"""


def space(text: str = CHOICES, objectives: str = 'objectives { metric: "auc" }') -> Space:
    return read_space("s.config", text=objectives + text)


def open_study(tmp_path: Path, searched: Space | None = None, name: str = "s", seed: int = 3) -> SharedStudy:
    return SharedStudy(f"sqlite:///{tmp_path}/study.db", name, searched or space(), seed)


def run_one(study: SharedStudy, total: int = TOTAL) -> int | None:
    trial = study.take(total)
    if trial is None:
        return None
    study.complete(trial, [float(study.choose(trial)["x"])])
    return trial.number


def test_two_who_share_a_study_never_have_the_same_trial(tmp_path: Path) -> None:
    def work(_: int) -> list[int]:
        study = open_study(tmp_path)
        study.plan(TOTAL)  # all of them at once
        numbers = []
        while (number := run_one(study)) is not None:
            numbers.append(number)
        return numbers

    with ThreadPoolExecutor(4) as pool:
        taken = [number for numbers in pool.map(work, range(4)) for number in numbers]
    assert sorted(taken) == list(range(TOTAL))
    study = open_study(tmp_path)
    assert [trial.state for trial in study.trials()] == [TrialState.COMPLETE] * TOTAL
    assert study.is_over(TOTAL)


def test_a_larger_total_adds_and_a_smaller_one_takes_nothing_away(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    study.plan(3)
    while run_one(study, 2) is not None:
        pass
    assert [trial.state.name for trial in study.trials()] == ["COMPLETE", "COMPLETE", "WAITING"]
    assert study.is_over(2)
    assert not study.is_over(3)
    study.plan(5)
    assert len(study.trials()) == 5


@pytest.mark.slow
def test_processes_killed_at_any_instant_lose_nothing(tmp_path: Path) -> None:
    (tmp_path / "s.config").write_text('objectives { metric: "auc" }' + CHOICES)
    url = f"sqlite:///{tmp_path}/study.db"
    open_study(tmp_path).plan(TOTAL)
    command = [sys.executable, "-c", WORKER, url, str(tmp_path / "s.config"), str(TOTAL), "0.05"]
    begun: Counter[int] = Counter()
    for kills in range(5):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
            assert process.stdout is not None
            for _ in range(2):
                begun[int(process.stdout.readline())] += 1
            timer = threading.Timer(0.01 * kills, process.kill)
            timer.start()
            begun.update(int(line) for line in process.stdout if line.strip().isdigit())
            timer.join()
    others = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) for _ in "ab"]
    for other in others:
        out, _ = other.communicate(timeout=300)
        assert other.returncode == 0
        begun.update(map(int, out.split()))
    study = open_study(tmp_path)
    assert [trial.state for trial in study.trials()] == [TrialState.COMPLETE] * TOTAL
    assert set(begun) == set(range(TOTAL))
    assert sum(begun.values()) <= TOTAL + 5  # at each kill at most one was begun in vain
    assert sum(trial.user_attrs["attempts"] for trial in study.trials()) >= TOTAL


def test_a_dead_owner_s_trial_waits_again_with_its_choices(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    study.plan(2)
    trial = study.take(2)
    assert trial is not None
    values = study.choose(trial)
    trial.report(0.5, 1)
    study.recover()
    assert study.trials()[0].state is TrialState.RUNNING  # its owner lives: that is us
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    owner = dict(trial.user_attrs["owner"])
    for who in ("process", "parent"):
        owner[who] = {"pid": gone.pid, "began": "1"}
    trial.set_user_attr("owner", owner)
    again = study.take(2)
    assert again is not None
    assert again.number == trial.number
    assert study.choose(again) == values
    assert study.trials()[0].intermediate_values == {1: 0.5}
    assert study.trials()[0].user_attrs["attempts"] == 2


def test_a_number_that_another_process_has_now_is_not_the_owner(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    study.plan(1)
    trial = study.take(1)
    assert trial is not None
    owner = dict(trial.user_attrs["owner"])
    for who in ("process", "parent"):
        owner[who] = {"pid": os.getpid(), "began": "long ago"}
    trial.set_user_attr("owner", owner)
    study.recover()
    assert study.trials()[0].state is TrialState.WAITING


def test_the_trial_of_another_machine_is_left_until_its_heartbeat_stops(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    study.plan(1)
    trial = study.take(1)
    assert trial is not None
    trial.set_user_attr("owner", {"host": "elsewhere", "process": {}, "parent": {}})
    study.recover()
    assert study.trials()[0].state is TrialState.RUNNING
    with study._storage.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE trial_heartbeats SET heartbeat = '2001-01-01 00:00:00.000000'")
    study.recover()
    assert study.trials()[0].state is TrialState.WAITING


def test_the_trial_of_a_worker_that_died_fails_with_its_reason(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    study.plan(2)
    assert study.take(2) is not None
    assert study.fail_of(os.getpid(), "out of memory") == 1
    assert study.fail_of(os.getpid(), "again") == 0
    assert study.trials()[0].state is TrialState.FAIL
    assert reason_of(study.trials()[0]) == "out of memory"


def test_what_a_trial_chooses_depends_on_those_before_it_not_on_the_process(tmp_path: Path) -> None:
    def choices(folder: str, restarts: bool) -> list[dict[str, object]]:
        (tmp_path / folder).mkdir()
        study = open_study(tmp_path / folder)
        study.plan(14)
        while run_one(study, 14) is not None:
            if restarts:
                study = open_study(tmp_path / folder)
        return [trial.params for trial in study.trials()]

    assert choices("one", False) == choices("two", True)


def test_the_same_config_again_takes_the_result_that_is_known(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    study.plan(3)
    first, second, third = (study.take(3) for _ in range(3))
    assert first is not None and second is not None and third is not None  # noqa: PT018
    assert study.twin(first, "digest") is None
    assert study.twin(second, "digest") is None  # the first has not ended
    study.complete(first, [0.7])
    twin = study.twin(third, "digest")
    assert twin is not None
    study.repeat(third, twin)
    assert study.trials()[2].values == [0.7]
    assert reason_of(study.trials()[2]) == "as trial 0"
    assert [trial.number for trial in best_trials(study.trials(), study.space.objectives)] == [0]


def test_the_best_are_within_the_limits_and_not_beaten_in_everything(tmp_path: Path) -> None:
    objectives = 'objectives { metric: "auc" } objectives { metric: "model_bytes" direction: MINIMIZE }'
    study = open_study(tmp_path, space(objectives=objectives))
    study.plan(6)
    results = [(0.5, 9.0), (0.8, 5.0), (0.7, 2.0), (0.6, 3.0), (0.9, 1.0), (0.7, 2.0)]
    for index, values in enumerate(results):
        trial = study.take(6)
        assert trial is not None
        study.choose(trial)
        trial.set_user_attr(CONSTRAINTS, [0.5 if index == 4 else -0.5])
        study.complete(trial, values)
    assert [trial.number for trial in best_trials(study.trials(), study.space.objectives)] == [1, 2, 5]
    assert not is_feasible(study.trials()[4])
    assert study.study.metric_names == ["auc", "model_bytes"]


def test_a_study_of_something_else_is_refused(tmp_path: Path) -> None:
    open_study(tmp_path)
    other = space(objectives='objectives { metric: "loss" direction: MINIMIZE }')
    with pytest.raises(UserError, match=r"maximize auc; expected those of the space, minimize loss\. Name another"):
        open_study(tmp_path, other)
    open_study(tmp_path, other, name="another")


@pytest.mark.parametrize("url", ["study.db", "nosuch://x", "sqlite://", "sqlite:///:memory:"])
def test_a_storage_that_is_none(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"--storage: found .*; expected"):
        SharedStudy(url, "s", space(), 1)


def test_passwords_of_a_storage_stay_secret() -> None:
    with pytest.raises(UserError) as error:
        SharedStudy("mysql://me:hidden@host/db", "s", space(), 1)
    assert "hidden" not in str(error.value)


FINITE = """
parameters { name: "x" path: "train_config.num_steps" int_range { low: 1 high: 3 } }
parameters { name: "kind" path: "model_config.model_name" values: ["a", "b"] }
"""


@pytest.mark.parametrize("sampler", ["GridSampler", "BruteForceSampler"])
def test_a_finite_space_is_tried_once_and_then_it_is_over(sampler: str, tmp_path: Path) -> None:
    study = open_study(tmp_path, space(FINITE + f'sampler {{ name: "{sampler}" }}'))
    study.plan(10)
    while run_one(study, 10) is not None:
        study = open_study(tmp_path, study.space)
    done = [tuple(sorted(trial.params.items())) for trial in study.trials(TrialState.COMPLETE)]
    assert len(done) == len(set(done)) == 6
    assert study.is_exhausted
    assert study.is_over(10)


@pytest.mark.parametrize(
    "text",
    [
        'sampler { name: "RandomSampler" }',
        'sampler { name: "TPESampler" args { n_startup_trials: 2 multivariate: false group: false } }',
        'sampler { name: "NSGAIISampler" args { population_size: 4 crossover_prob: 0.5 } }',
        'pruner { name: "HyperbandPruner" args { min_resource: 1 max_resource: 4 } }',
        'pruner { name: "PatientPruner" args { patience: 1 wrapped_pruner { name: "MedianPruner" args {} } } }',
        'pruner { name: "SuccessiveHalvingPruner" }',
    ],
)  # fmt: skip
def test_samplers_and_pruners_by_name(text: str, tmp_path: Path) -> None:
    study = open_study(tmp_path, space(CHOICES + text))
    study.plan(6)
    for _ in range(6):
        trial = study.take(6)
        assert trial is not None
        value = float(study.choose(trial)["x"])
        trial.report(value, 1)
        trial.should_prune()
        study.complete(trial, [value])
    assert len({trial.params["x"] for trial in study.trials()}) > 3


def test_a_grid_needs_finitely_many_values(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"GridSampler, with y, expected a choice of finitely many"):
        open_study(tmp_path, space(CHOICES + 'sampler { name: "GridSampler" }'))


def test_optuna_opens_the_study_as_it_is(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    study.plan(2)
    while run_one(study, 2) is not None:
        pass
    seen = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path}/study.db")
    assert seen.best_value == max(trial.params["x"] for trial in seen.trials)
    assert list(seen.trials_dataframe()["state"]) == ["COMPLETE", "COMPLETE"]
