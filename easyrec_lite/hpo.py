"""Searches for a better config: `python -m easyrec_lite.hpo --config x.config --space space.config --trials 50`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from easyrec_lite import _arguments
from easyrec_lite._workers import Search, Workers
from easyrec_lite.errors import UserError
from easyrec_lite.terminal import INTERRUPTED, keep_reports_in, main_guard, table, warn

if TYPE_CHECKING:
    from easyrec_lite.tuning import BaseConfig, SharedStudy, Space

_REFRESH_SECONDS = 0.5


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    arguments = _arguments.parser("hpo", "Searches a space of configs; see docs/tuning.md.")
    arguments.add_argument("--space", metavar="FILE", help="the search space")
    arguments.add_argument("--trials", type=_arguments.positive, metavar="N", help="that the study is to have in all")
    arguments.add_argument("--storage", metavar="URL", help="a database; sqlite:///DIR/study.db by default")
    arguments.add_argument("--study", metavar="NAME", help="by default the name of the base config's file")
    arguments.add_argument(
        "--workers", type=_arguments.positive, default=1, metavar="N", help="processes; 1 by default"
    )
    arguments.add_argument("--timeout", type=_seconds, metavar="SECONDS", help="after which no trial is begun")
    arguments.add_argument("--seed", type=int, default=1, metavar="N", help="of the sampler; 1 by default")
    arguments.add_argument("--train_input_path", action="append", metavar="PATH", help="overrides the config's")
    arguments.add_argument("--eval_input_path", action="append", metavar="PATH", help="overrides the config's")
    options, overrides = _arguments.parse(arguments, argv)
    for name in ("config", "space", "trials"):
        if not getattr(options, name):
            raise UserError(f"--{name} is missing: python -m easyrec_lite.hpo --config FILE --space FILE --trials N")
    for field in ("train_input_path", "eval_input_path"):
        if paths := _arguments.path_list(getattr(options, field)):
            overrides.append(f"{field}={paths}")
    return _search(options, overrides)


def _search(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    from easyrec_lite import _runs
    from easyrec_lite._study_display import StudyDisplay
    from easyrec_lite.tuning import BaseConfig, SharedStudy, read_space

    space = read_space(options.space)
    base = BaseConfig(options.config, overrides, _runs.CHECKS)
    base.check(space)
    for warning in base.config.warnings:
        warn(str(warning).replace(": warning: ", ": ", 1))
    directory = Path(options.model_dir or f"{base.config.message.model_dir or Path(options.config).stem}_hpo")
    _check_run(base, space, directory)
    keep_reports_in(directory)
    storage = options.storage or f"sqlite:///{(directory / 'study.db').absolute()}"
    search = Search(
        config=os.path.abspath(options.config),
        overrides=tuple(overrides),
        space=os.path.abspath(options.space),
        storage=storage,
        study=options.study or Path(options.config).stem,
        trials=options.trials,
        seed=options.seed,
        directory=directory.absolute(),
        end=time.time() + options.timeout if options.timeout is not None else None,
        imports=tuple(options.imports),
    )
    study = SharedStudy(search.storage, search.study, space, search.seed)
    study.plan(search.trials)
    display = StudyDisplay(study, search.trials)
    workers = Workers(search, study, options.workers)
    interrupted = False
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        workers.start()
        ended = -1
        while workers.watch():
            display.update()
            now = sum(trial.state.is_finished() for trial in study.trials())
            if now != ended:
                _write(search, study, base)
                ended = now
            time.sleep(_REFRESH_SECONDS)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        workers.stop()
        display.update()
        display.close()
        study.plan(search.trials)
    _finish(search, study, base, interrupted)
    return INTERRUPTED if interrupted else 0


def _check_run(base: BaseConfig, space: Space, directory: Path) -> None:
    """Everything that would end each trial is told before the first.

    Raises:
        ConfigError: objectives that the config does not report, or no rows to train or evaluate on.
        InputError: the files are not there.
    """
    from easyrec_lite import _runs, _sources
    from easyrec_lite.config import ConfigError, Problem
    from easyrec_lite.models import Recommender, bind_metrics
    from easyrec_lite.tuning import COSTS, TRAIN_SECONDS, metric_problems

    message = base.config.message
    problems = []
    kafka = message.HasField("kafka_train_input")
    if not message.train_input_path and not kafka:
        problems.append(Problem("train_input_path", "nothing", "the files to train on"))
    endless = kafka and message.kafka_train_input.WhichOneof("end") is None
    if not message.train_config.num_steps and (endless or not (kafka or message.data_config.num_epochs)):
        expected = "train_config.num_steps or data_config.num_epochs above 0: every trial must end"
        problems.append(Problem("train_config.num_steps", "no end of training", expected))
    if not _sources.can_evaluate(message):
        problems.append(Problem("eval_input_path", "nothing", "the rows that trials are judged by"))
    if problems:
        raise ConfigError(problem.at(base.config.locate(problem.path)) for problem in problems)
    with _runs.late_errors(base.config):
        recommender = Recommender(message, training=False, tables=False)
        recommender.build()
        _sources.training_source(message, recommender, directory).close()
        _sources.evaluation_source(message, recommender).close()
    names = {metric.name for metric in bind_metrics(message, recommender.model.tasks)}
    if not any(parameter.alternatives for parameter in space.message.parameters):  # these may bring others
        found = list(metric_problems(space.message, {*names, "loss", *COSTS, TRAIN_SECONDS}))
        if found:
            raise ConfigError(space.located(problem) for problem in found)


def _write(search: Search, study: SharedStudy, base: BaseConfig) -> None:
    from easyrec_lite.tuning.results import write_results

    write_results(search.directory, study, base)


def _finish(search: Search, study: SharedStudy, base: BaseConfig, interrupted: bool) -> None:
    """Writes the results and says where they are."""
    from optuna.trial import TrialState

    from easyrec_lite import _study_report, _trials
    from easyrec_lite.tuning import results, text_of

    directory = search.directory
    best = results.write_results(directory, study, base)
    _trials.clean_up(directory, study)
    report = _study_report.write_report(directory, study, best)
    counts = [(state.name.lower(), len(study.trials(state))) for state in TrialState]
    table(f"Study {study.name}", ("trials", "number"), [(name, count) for name, count in counts if count])
    for trial in best[:5]:
        title = f"Best: trial {trial.number}, {results.values_text(trial, study.space)}"
        table(title, ("choice", "value"), [(name, text_of(value)) for name, value in trial.params.items()])
    if not best:
        warn("no trial is complete and within the limits; trials.csv has the reasons")
    places = [("report", str(report)), ("all trials", str(directory / results.TRIALS_CSV))]
    if best:
        model = directory / _trials.TRIALS_DIR / f"{best[0].number:05d}"
        places = [("best config", str(directory / results.BEST_CONFIG)), ("its model", str(model)), *places]
    if len(best) > 1:
        places.append(("best trade-offs", str(directory / results.FRONT_DIR)))
    table("Where things are", ("what", "where"), [*places, ("study", search.storage)])
    if study.is_exhausted:
        print("the sampler has tried everything that the space has")
    elif interrupted or not study.is_over(search.trials):
        print("the same command goes on with the trials that are left")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if value < 0:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected a number of seconds")
    return value


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
