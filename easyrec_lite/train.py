"""Trains a model from a config: `python -m easyrec_lite.train --config x.config`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from easyrec_lite import _arguments
from easyrec_lite.terminal import keep_reports_in, main_guard, table


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
    options, overrides = _arguments.parse(arguments, argv)
    for field in ("train_input_path", "eval_input_path"):
        if paths := _arguments.path_list(getattr(options, field)):
            overrides.append(f"{field}={paths}")
    if options.fine_tune_checkpoint:
        overrides.append(f"train_config.fine_tune_checkpoint={options.fine_tune_checkpoint}")
    if options.hpo_param_path:
        overrides += _arguments.edits_from_file(options.hpo_param_path)
    return _train(options.config, overrides, options.continue_train)


def _train(path: str, overrides: Sequence[str], resume: bool) -> int:
    # TensorFlow takes seconds to import: a wrong flag is told before.
    from easyrec_lite import _runs
    from easyrec_lite._interruption import StopOnSignal
    from easyrec_lite._progress import ProgressDisplay

    config = _runs.load(path, overrides)
    model_dir = _runs.model_dir_of(config)
    keep_reports_in(model_dir)
    display, interruption = ProgressDisplay(config.message.train_config.num_steps or None), StopOnSignal()
    try:
        result = _runs.train(config, _runs.TrainOptions(resume, [interruption], display=display))
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


if __name__ == "__main__":
    sys.exit(main())
