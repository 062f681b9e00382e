"""Training as a config says: the rooms put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import tensorflow as tf

from easyrec_lite import _decisions
from easyrec_lite._decisions import Decision
from easyrec_lite._exporters import Exporter, ExportRows, model_writer
from easyrec_lite._progress import ProgressDisplay
from easyrec_lite._runs import evaluator, late_errors, model_dir_of, set_up_tensorflow
from easyrec_lite._sources import STATISTICS_FILE, can_evaluate, column_types, describe_columns, training_source
from easyrec_lite.checkpoints import (
    Checkpoint,
    Files,
    atomic_write_text,
    clean_up,
    discard_after,
    environment_changes,
    find,
    latest,
    read_name_map,
    warm_start,
)
from easyrec_lite.config import ConfigError, PipelineConfig, Problem, changed_fields, stored_config, to_text
from easyrec_lite.errors import DriftAlarm, UserError
from easyrec_lite.inputs import KafkaSource, Source, as_dataset, input_errors
from easyrec_lite.models import Recommender, bind_metrics, model_tensors
from easyrec_lite.protos import export_pb2, pipeline_pb2
from easyrec_lite.streaming import (
    ALARMS_FILE,
    AlarmLog,
    Stop,
    Surroundings,
    published_dir,
    stream_callbacks,
)
from easyrec_lite.streaming.alarms import SKIP
from easyrec_lite.terminal import warn
from easyrec_lite.training import (
    BestMetric,
    Callback,
    FitResult,
    MetricsJournal,
    StatisticsRecorder,
    StopAtRow,
    TensorBoard,
    TrainedBatches,
    Trainer,
    training_environment,
    training_tensors,
)

CONFIG_FILE = "pipeline.config"
METRICS_FILE = "metrics.jsonl"


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
    columns = describe_columns(source)
    types = column_types(columns)
    evaluate = evaluator(message, recommender, options.eval_rows, types) if evaluates else None
    trainer = Trainer(
        recommender,
        lambda position: as_dataset(source, position, details=True),
        model_dir,
        evaluate=evaluate,
        callbacks=_callbacks(message, recommender, source, types, text, model_dir, options, alarms),
        config_text=text,
        prefetch=max(1, min(message.data_config.prefetch_size, 8)),
        columns=columns,
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
    types: Mapping[str, str],
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
    rows = ExportRows(config, recommender, types, options.rows, options.eval_rows, _tell(options))
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
        changes = changed_fields(stored_config(checkpoint.config), config)
        refused = [change for change in changes if not change.allowed]
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
