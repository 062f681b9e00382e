"""Trains a model from a config: `python -m easyrec_lite.train --config x.config`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from easyrec_lite import _arguments
from easyrec_lite.terminal import keep_reports_in, main_guard, table

if TYPE_CHECKING:
    from easyrec_lite._decisions import Decision


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    arguments = _arguments.parser("train", "Trains, evaluates and checkpoints the model that a config describes.")
    arguments.add_argument("--train_input_path", action="append", metavar="PATH", help="overrides the config's")
    arguments.add_argument("--eval_input_path", action="append", metavar="PATH", help="overrides the config's")
    arguments.add_argument(
        "--continue_train",
        nargs="?",
        const=True,
        default=False,
        type=_arguments.boolean,
        help="go on from the newest checkpoint of model_dir",
    )
    arguments.add_argument("--fine_tune_checkpoint", metavar="PATH", help="start from these weights")
    arguments.add_argument("--hpo_param_path", metavar="FILE", help='EasyRec\'s JSON {"param": {path: value}}')
    going_on = arguments.add_mutually_exclusive_group()
    going_on.add_argument(
        "--on_alarm",
        choices=["accept", "skip"],
        help="goes on after a drift alarm: accept trains on its rows, as the new normal; skip jumps over them",
    )
    going_on.add_argument(
        "--replay_from",
        metavar="CHECKPOINT",
        help="goes back to a checkpoint, a path or a step, and on from there; `published`: that of the newest version",
    )
    going_on.add_argument(
        "--rebase",
        metavar="CHECKPOINT",
        help="takes over a newer base model, and goes on in the stream where that one's data ended",
    )
    arguments.add_argument(
        "--rollback_published",
        action="store_true",
        help="takes the newest published version back; with --replay_from published the training, too",
    )
    options, overrides = _arguments.parse(arguments, argv)
    for field in ("train_input_path", "eval_input_path"):
        if paths := _arguments.path_list(getattr(options, field)):
            overrides.append(f"{field}={paths}")
    if options.fine_tune_checkpoint:
        overrides.append(f"train_config.fine_tune_checkpoint={options.fine_tune_checkpoint}")
    if options.hpo_param_path:
        overrides += _arguments.edits_from_file(options.hpo_param_path)
    return _train(options, overrides)


def _train(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    # TensorFlow takes seconds to import: a wrong flag is told before.
    from easyrec_lite import _runs, _training
    from easyrec_lite._interruption import StopOnSignal
    from easyrec_lite._progress import ProgressDisplay

    path, decision = options.config, _decision(options)
    if options.continue_train or decision is not None or options.rollback_published:
        path = path or _arguments.config_in(options.model_dir)
    config = _runs.load(path, overrides)
    model_dir = _runs.model_dir_of(config)
    keep_reports_in(model_dir)
    if options.rollback_published:
        back = _runs.roll_back_published(config)
        rows = [("taken back", back.step, str(back.taken)), ("served now", back.now_step, str(back.now))]
        table("Published versions", ("what", "step", "where"), rows)
        if decision is None:
            return 0
    display, interruption = ProgressDisplay(config.message.train_config.num_steps or None), StopOnSignal()
    try:
        result = _training.train(
            config,
            _training.TrainOptions(
                options.continue_train, [interruption], display=display, decision=decision, imports=options.imports
            ),
        )
    finally:
        display.close()
        interruption.close()
    title = f"Trained {config.message.model_config.model_class}: step {result.step:,}, {result.stopped_by}"
    table(title, ("metric", "value"), list(result.metrics.items()))
    rate = result.rows / result.seconds if result.seconds else 0.0
    places = [
        ("rows trained", f"{result.rows:,} in {result.seconds:.1f} s ({rate:,.0f} rows/s, evaluation included)"),
        ("model directory", str(model_dir)),
        ("checkpoint", str(result.checkpoint.path) if result.checkpoint else "none written"),
    ]
    exports = sorted((model_dir / "export").glob("*/*")) if (model_dir / "export").exists() else []
    places += [("export", str(exports[-1]))] if exports else []
    table("Where things are", ("what", "where"), places)
    return 128 + interruption.received if interruption.received else 0


def _decision(options: argparse.Namespace) -> Decision | None:
    from easyrec_lite._decisions import Decision

    if options.on_alarm:
        return Decision(options.on_alarm)
    for kind, place in (("replay", options.replay_from), ("rebase", options.rebase)):
        if place:
            return Decision(kind, place)
    return None


if __name__ == "__main__":
    sys.exit(main())
