"""What the commands do, as functions: they put the rooms together."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import tensorflow as tf

from easyrec_lite import _decisions, _sources, features, models, streaming
from easyrec_lite._decisions import Decision
from easyrec_lite._exporters import Exporter, ExportRows, model_writer
from easyrec_lite._progress import ProgressDisplay
from easyrec_lite._sources import STATISTICS_FILE, can_evaluate, describe_columns, evaluation_source, training_source
from easyrec_lite.checkpoints import (
    Checkpoint,
    Files,
    atomic_write_json,
    atomic_write_text,
    clean_up,
    discard_after,
    environment_changes,
    find,
    latest,
    read_name_map,
    warm_start,
)
from easyrec_lite.config import ConfigError, PipelineConfig, Problem, changed_fields, load_config, to_text
from easyrec_lite.errors import DriftAlarm, UserError
from easyrec_lite.inputs import KafkaSource, Source, as_dataset, input_errors
from easyrec_lite.models import Recommender, bind_metrics, model_tensors
from easyrec_lite.protos import export_pb2, pipeline_pb2
from easyrec_lite.serving import restored_recommender
from easyrec_lite.streaming import (
    ALARMS_FILE,
    AlarmLog,
    RolledBack,
    Stop,
    Surroundings,
    published_dir,
    roll_back,
    stream_callbacks,
)
from easyrec_lite.streaming.alarms import SKIP
from easyrec_lite.terminal import warn
from easyrec_lite.training import (
    BestMetric,
    Callback,
    Evaluator,
    FitResult,
    MetricsJournal,
    StatisticsRecorder,
    StopAtRow,
    TensorBoard,
    TrainedBatches,
    Trainer,
    keep_freed_memory,
    optimizers,
    training_environment,
    training_tensors,
)

CONFIG_FILE = "pipeline.config"
METRICS_FILE = "metrics.jsonl"

CHECKS = (features.check, models.check, optimizers.check, streaming.check, _sources.check)


def load(path: str | Path | None, overrides: Sequence[str] = ()) -> PipelineConfig:
    """Reads and checks a config with everything that any room finds wrong with it.

    Raises:
        ConfigError: all problems at once.
        UserError: no path is given.
    """
    if not path:
        raise UserError("Which config? Say --config x.config")
    config = load_config(path, overrides, checks=CHECKS)
    for warning in config.warnings:
        warn(str(warning).replace(": warning: ", ": ", 1))  # `warn` says so first
    return config


def set_up_tensorflow(config: pipeline_pb2.EasyRecConfig) -> None:
    """Applies the thread counts of the config, and keeps freed memory: both before TensorFlow does anything."""
    train, threading = config.train_config, tf.config.threading
    try:
        if train.inter_op_parallelism_threads:
            threading.set_inter_op_parallelism_threads(train.inter_op_parallelism_threads)
        if train.intra_op_parallelism_threads:
            threading.set_intra_op_parallelism_threads(train.intra_op_parallelism_threads)
    except RuntimeError:  # the second run of a process, such as a notebook's
        warn(
            "The thread counts of train_config stay as they are: TensorFlow runs already. Start a new process for them."
        )
    keep_freed_memory()


def model_dir_of(config: PipelineConfig) -> Path:
    """The model directory.

    Raises:
        ConfigError: the config names none.
    """
    if not config.message.model_dir:
        raise ConfigError([Problem("model_dir", "nothing", "a directory for the model", "or say --model_dir DIR")])
    return Path(config.message.model_dir)


def evaluator(
    config: pipeline_pb2.EasyRecConfig, recommender: Recommender, rows: pd.DataFrame | None = None
) -> Evaluator:
    """Evaluates on `rows`, or on the config's evaluation rows."""
    source = evaluation_source(config, recommender, rows)
    return Evaluator(recommender, as_dataset(source), config.eval_config.num_examples)


@dataclass
class TrainOptions:
    """How to start a training run.

    Attributes:
        resume: go on from the newest checkpoint of model_dir, if there is one.
        callbacks: told of everything, after those that the config asks for.
        files: file operations of the checkpoints.
        display: shows it at the terminal.
        decision: what to do about an alarm, or where to go back to; then it goes on.
        imports: modules of the user's, for commands that are shown.
        rows: to train on in place of what the config names.
        eval_rows: to evaluate on in place of what the config names.
    """

    resume: bool = False
    callbacks: Sequence[Callback] = ()
    files: Files | None = None
    display: ProgressDisplay | None = None
    decision: Decision | None = None
    imports: Sequence[str] = ()
    rows: pd.DataFrame | None = None
    eval_rows: pd.DataFrame | None = None


def train(config: PipelineConfig, options: TrainOptions | None = None) -> FitResult:
    """Trains as the config says; see `python -m easyrec_lite.train`.

    Raises:
        ConfigError: all that is wrong with the config.
        UserError: model_dir holds another run, or one that waits for a decision; or the decision does not fit.
        DriftAlarm: the drift monitor stopped the training; model_dir is back at the checkpoint from before.
    """
    options = options or TrainOptions()
    message = config.message
    model_dir = model_dir_of(config)
    kafka = message.HasField("kafka_train_input") and options.rows is None
    if not message.train_input_path and not kafka and options.rows is None:
        raise ConfigError([Problem("train_input_path", "nothing", "the files, or kafka_train_input, to train on")])
    if not kafka and not message.train_config.num_steps and not message.data_config.num_epochs:
        expected = "train_config.num_steps or data_config.num_epochs above 0"
        raise ConfigError([Problem("train_config.num_steps", "no end of training", expected)])
    alarms = AlarmLog(model_dir / ALARMS_FILE, options.files)
    start, stop = None, None
    if options.resume or options.decision is not None:
        known = (alarms, options.decision, _tell(options), options.imports, options.files)
        start, stop = _decisions.prepare(message, model_dir, *known)
    else:
        _refuse_trained(model_dir, alarms)
    set_up_tensorflow(message)
    _make_deterministic()
    with late_errors(config):
        if start is not None:
            _check_unchanged(start, message)
            _warn_of_changes(start)
            if stop is not None and options.decision is not None and options.decision.kind == SKIP:
                start, ended = _train_up_to(stop.from_row, start, config, model_dir, options, alarms)
                if ended is not None:
                    return ended
        return _train(config, model_dir, options, start, alarms, stop)


def _train_up_to(
    row: int, start: Checkpoint, config: PipelineConfig, model_dir: Path, options: TrainOptions, alarms: AlarmLog
) -> tuple[Checkpoint, FitResult | None]:
    """Trains the sound rows between a checkpoint and alarmed ones, the first of which is `row`.

    Returns:
        The checkpoint from which the run goes on; and how the training ended if somebody stopped it before that row.
    """
    if (sound := row - start.state["rows"]) <= 0:
        return start, None
    _tell(options)(f"training the {sound:,} rows between {start.path.name} and the alarmed ones")
    before = replace(options, decision=None, callbacks=[*options.callbacks, StopAtRow(row)])
    result = _train(config, model_dir, before, start, alarms, None)
    assert result.checkpoint is not None, "written at the end of the training"
    return result.checkpoint, result if result.checkpoint.state["rows"] < row else None


def _refuse_trained(model_dir: Path, alarms: AlarmLog) -> None:
    """A new run needs a directory without a trained model; one that never came to a step is begun anew."""
    if (newest := latest(model_dir)) is not None:
        if newest.step or alarms.records:
            raise UserError(
                f"{model_dir} holds a trained model already. Go on with it by --continue_train, or name another"
                " --model_dir."
            )
        discard_after(model_dir, -1)


def _tell(options: TrainOptions) -> Callable[[str], None]:
    return warn if options.display is None else options.display.warn


def _train(
    config: PipelineConfig,
    model_dir: Path,
    options: TrainOptions,
    start: Checkpoint | None,
    alarms: AlarmLog,
    stop: Stop | None,
) -> FitResult:
    message, text = config.message, to_text(config.message)
    recommender = Recommender(message)
    source = training_source(message, recommender, model_dir, options.rows, fresh=start is None)
    evaluates = can_evaluate(message) or options.eval_rows is not None
    evaluate = evaluator(message, recommender, options.eval_rows) if evaluates else None
    trainer = Trainer(
        recommender,
        lambda position: as_dataset(source, position, details=True),
        model_dir,
        evaluate=evaluate,
        callbacks=_callbacks(message, recommender, source, text, model_dir, options, alarms),
        config_text=text,
        prefetch=max(1, min(message.data_config.prefetch_size, 8)),
        columns=describe_columns(source),
        files=options.files,
    )
    if start is not None:
        discard_after(model_dir, start.step, options.files)  # none, but for a run that goes back
        trainer.resume()
    else:
        clean_up(model_dir, options.files)
        if message.train_config.fine_tune_checkpoint:
            _fine_tune(message, trainer)
    if isinstance(source, KafkaSource) and trainer.position is None:
        trainer.position = source.first_position().to_json()  # the same place, and end, if it comes back to the start
    model_dir.mkdir(parents=True, exist_ok=True)
    atomic_write_text(model_dir / CONFIG_FILE, text, options.files)
    try:
        with input_errors(source):
            if options.decision is not None:
                _decisions.carry_out(options.decision, stop, trainer, source, alarms, _tell(options))
            return trainer.fit()
    except DriftAlarm:
        stop = alarms.stop()
        assert stop is not None, "it is why"
        discard_after(model_dir, stop.restored_step, options.files)
        raise
    finally:
        source.close()
        alarms.close()


@contextlib.contextmanager
def late_errors(config: PipelineConfig) -> Iterator[None]:
    """Says of what is found out only after the config was read where it comes from.

    Raises:
        ConfigError: with the lines of its problems.
        UserError: rows broke a rule that the graph checks, such as a label that is no number.
    """
    try:
        yield
    except ConfigError as error:
        raise ConfigError([problem.at(config.locate(problem.path)) for problem in error.problems]) from error
    except tf.errors.InvalidArgumentError as error:
        found = re.search(r"assertion failed: \[(.*?)\]", error.message, re.DOTALL)
        if found is None:
            raise
        raise UserError(found[1]) from error


def _make_deterministic() -> None:
    """Same bits for the same rows, on a GPU too, where some kernels add in the order in which threads come.

    The CPU kernels that we use add in an order which only the number of threads decides. There the switch would change
    no bit and forbid the input pipeline to prepare batches side by side.
    """
    if tf.config.list_physical_devices("GPU"):
        tf.config.experimental.enable_op_determinism()


def _callbacks(
    config: pipeline_pb2.EasyRecConfig,
    recommender: Recommender,
    source: Source,
    text: str,
    model_dir: Path,
    options: TrainOptions,
    alarms: AlarmLog,
) -> list[Callback]:
    export, files, display = config.export_config, options.files, options.display
    patience = export.max_check_steps if export.enable_early_stop else 0
    journal = MetricsJournal(model_dir / METRICS_FILE, files)
    recorders: list[MetricsJournal | TensorBoard | ProgressDisplay] = [journal, TensorBoard(model_dir / "tensorboard")]
    if display is not None:
        recorders.append(display)
    stream = source if isinstance(source, KafkaSource) else None
    inputs = {name: feature.inputs for name, feature in recommender.features.items()}
    columns = {name: names[0] for name, names in inputs.items() if len(names) == 1}
    batches = TrainedBatches(columns, config.data_config.event_time_field)
    published = published_dir(config.stream_config.publish, model_dir)
    rows = ExportRows(config, recommender, options.rows, options.eval_rows, _tell(options))
    around = Surroundings(
        model_dir,
        batches,
        alarms,
        write=model_writer(config, text, published, rows) if config.stream_config.HasField("publish") else None,
        source=stream,
        recorders=recorders,
        journal=journal,
        tell=_tell(options),
        imports=options.imports,
        files=files,
    )
    watching = stream_callbacks(config, recommender, around)
    callbacks: list[Callback] = [
        batches,
        rows,
        *watching,
        *recorders,
        StatisticsRecorder(model_dir / STATISTICS_FILE, batches, config.train_config.seed, files),
    ]
    best = None
    if can_evaluate(config) or options.eval_rows is not None:
        _check_metric(export, recommender)
        best = BestMetric(export.best_exporter_metric, export.metric_bigger, patience)
        callbacks.append(best)
    if export.exporter_type != "none":
        directory = model_dir / "export" / export.exporter_type
        callbacks.append(Exporter(config, text, directory, best, rows, _tell(options)))
    if display is not None:
        display.monitor = watching.monitor if stream is not None else None
    return [*callbacks, *options.callbacks]


def _check_metric(export: export_pb2.ExportConfig, recommender: Recommender) -> None:
    if export.exporter_type == "best" or export.enable_early_stop:
        names = [metric.name for metric in bind_metrics(recommender.config, recommender.model.tasks)]
        if export.best_exporter_metric not in (*names, "loss"):
            found, path = repr(export.best_exporter_metric), "export_config.best_exporter_metric"
            raise ConfigError([Problem(path, found, f"what an evaluation reports: {', '.join(names)} or loss")])


def _check_unchanged(checkpoint: Checkpoint, config: pipeline_pb2.EasyRecConfig) -> None:
    """Refuses to go on with a config that would not be the same run."""
    if checkpoint.config:
        old = load_config(None, text=checkpoint.config).message
        refused = [change for change in changed_fields(old, config) if not change.allowed]
        if refused:
            raise ConfigError(
                [
                    Problem(change.path, str(change.new), f"as before, {change.old}", change.message)
                    for change in refused
                ]
            )


def _warn_of_changes(checkpoint: Checkpoint) -> None:
    if changes := environment_changes(checkpoint.environment, training_environment()):
        warn(f"Resuming with other software or hardware, so weights may differ in the last bits: {'; '.join(changes)}")


def _fine_tune(config: pipeline_pb2.EasyRecConfig, trainer: Trainer) -> None:
    train_config = config.train_config
    names = read_name_map(train_config.fine_tune_ckpt_var_map) if train_config.fine_tune_ckpt_var_map else {}
    checkpoint = find(train_config.fine_tune_checkpoint)
    report = warm_start(
        checkpoint, model_tensors(trainer.recommender), names, crop_or_pad=train_config.force_restore_shape_compatible
    )
    # A new run has optimizer state of its own: that of the old one is not missed.
    own = {tensor.name for tensor in training_tensors(trainer.stepper)}
    report.unused[:] = [name for name in report.unused if name not in own]
    warn(f"{train_config.fine_tune_checkpoint}: {report}")


def roll_back_published(config: PipelineConfig) -> RolledBack:
    """Takes the newest published version back; see `streaming.roll_back`."""
    return roll_back(published_dir(config.message.stream_config.publish, model_dir_of(config)))


def checkpoint_of(config: PipelineConfig, path: str | None) -> Checkpoint:
    """The checkpoint at `path`, or the newest of the model directory.

    Raises:
        CheckpointError: there is none.
    """
    return find(path or model_dir_of(config))


def evaluate(config: PipelineConfig, checkpoint_path: str | None = None) -> tuple[Checkpoint, dict[str, float]]:
    """Evaluates a checkpoint on the config's evaluation rows."""
    message = config.message
    if not can_evaluate(message):
        raise ConfigError([Problem("eval_input_path", "nothing", "the files, or kafka_eval_input, to evaluate on")])
    checkpoint = checkpoint_of(config, checkpoint_path)
    set_up_tensorflow(message)
    with late_errors(config):
        recommender = restored_recommender(message, checkpoint)
        source = evaluation_source(message, recommender)
        with input_errors(source):
            metrics = Evaluator(recommender, as_dataset(source), message.eval_config.num_examples)()
    return checkpoint, metrics


def write_result(path: Path, checkpoint: Checkpoint, metrics: dict[str, float]) -> None:
    """Writes an evaluation as JSON."""
    atomic_write_json(path, {"step": checkpoint.step, **metrics})
