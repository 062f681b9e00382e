"""What the commands do, as functions, but for training: they put the rooms together."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
import tensorflow as tf

from easyrec_lite import _sources, features, models, streaming
from easyrec_lite._sources import can_evaluate, evaluation_source, trained_types
from easyrec_lite.checkpoints import (
    Checkpoint,
    atomic_write_json,
    find,
)
from easyrec_lite.config import (
    ConfigError,
    PipelineConfig,
    Problem,
    changed_fields,
    load_config,
    stored_config,
    to_text,
)
from easyrec_lite.errors import UserError
from easyrec_lite.inputs import as_dataset, input_errors
from easyrec_lite.models import Recommender
from easyrec_lite.protos import pipeline_pb2
from easyrec_lite.serving import restored_recommender
from easyrec_lite.streaming import (
    RolledBack,
    published_dir,
    roll_back,
)
from easyrec_lite.terminal import warn
from easyrec_lite.training import (
    Evaluator,
    keep_freed_memory,
    optimizers,
)

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


def restored(config: pipeline_pb2.EasyRecConfig, checkpoint: Checkpoint) -> Recommender:
    """The model of `config` with the values of a checkpoint; warns if those were trained with another config.

    Raises:
        CheckpointError: names or shapes differ.
    """
    warn_of_changes(config, checkpoint)
    return restored_recommender(config, checkpoint)


def warn_of_changes(config: pipeline_pb2.EasyRecConfig, checkpoint: Checkpoint) -> None:
    """Tells of what has changed since a checkpoint was trained and gives its weights another meaning."""
    if checkpoint.config and checkpoint.config != to_text(config):
        changes = changed_fields(stored_config(checkpoint.config), config)
        if found := [f"{change.path} was {change.old}, is {change.new}" for change in changes if change.of_weights]:
            warn(f"The weights of {checkpoint.path} were trained with another config: {'; '.join(found)}")


def checkpoint_of(config: PipelineConfig, path: str | None) -> Checkpoint:
    """The checkpoint at `path`, or the newest of the model directory.

    Raises:
        CheckpointError: there is none.
    """
    return find(path or model_dir_of(config))


def evaluator(
    config: pipeline_pb2.EasyRecConfig,
    recommender: Recommender,
    rows: pd.DataFrame | None = None,
    types: Mapping[str, str] | None = None,
) -> Evaluator:
    """Evaluates on `rows`, or on the config's evaluation rows, read as training reads its own."""
    source = evaluation_source(config, recommender, rows, types=types)
    return Evaluator(recommender, as_dataset(source), config.eval_config.num_examples)


def evaluate(config: PipelineConfig, checkpoint_path: str | None = None) -> tuple[Checkpoint, dict[str, float]]:
    """Evaluates a checkpoint on the config's evaluation rows."""
    message = config.message
    if not can_evaluate(message):
        raise ConfigError([Problem("eval_input_path", "nothing", "the files, or kafka_eval_input, to evaluate on")])
    checkpoint = checkpoint_of(config, checkpoint_path)
    set_up_tensorflow(message)
    with late_errors(config):
        recommender = restored(message, checkpoint)
        source = evaluation_source(message, recommender, types=trained_types(checkpoint))
        with input_errors(source):
            metrics = Evaluator(recommender, as_dataset(source), message.eval_config.num_examples)()
    return checkpoint, metrics


def write_result(path: Path, checkpoint: Checkpoint, metrics: dict[str, float]) -> None:
    """Writes an evaluation as JSON."""
    atomic_write_json(path, {"step": checkpoint.step, **metrics})


def roll_back_published(config: PipelineConfig) -> RolledBack:
    """Takes the newest published version back; see `streaming.roll_back`."""
    return roll_back(published_dir(config.message.stream_config.publish, model_dir_of(config)))
