"""Evaluates a trained model: `python -m easyrec_lite.evaluate --config x.config`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from easyrec_lite import _arguments
from easyrec_lite.terminal import keep_reports_in, main_guard, table


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    arguments = _arguments.parser("evaluate", "Evaluates a checkpoint on the evaluation rows of its config.")
    arguments.add_argument("--eval_input_path", action="append", metavar="PATH", help="overrides the config's")
    arguments.add_argument("--checkpoint_path", metavar="PATH", help="a checkpoint; else the newest of model_dir")
    arguments.add_argument(
        "--eval_result_path",
        default="eval_result.json",
        metavar="FILE",
        help="where the metrics go as JSON; a relative path starts in model_dir",
    )
    options, overrides = _arguments.parse(arguments, argv)
    if paths := _arguments.path_list(options.eval_input_path):
        overrides.append(f"eval_input_path={paths}")

    from easyrec_lite import _runs

    config = _runs.load(options.config or _arguments.config_in(options.model_dir), overrides)
    model_dir = _runs.model_dir_of(config)
    keep_reports_in(model_dir)
    checkpoint, metrics = _runs.evaluate(config, options.checkpoint_path)
    result: Path = model_dir / options.eval_result_path
    _runs.write_result(result, checkpoint, metrics)
    table(f"Evaluation at step {checkpoint.step:,}", ("metric", "value"), list(metrics.items()))
    print(f"written to {result}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
