"""Looks into a trained model: `python -m easyrec_lite.insight --model_dir runs/a --importance --out report.html`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from easyrec_lite import _arguments
from easyrec_lite.errors import UserError
from easyrec_lite.terminal import keep_reports_in, main_guard, table

if TYPE_CHECKING:
    import pandas as pd

    from easyrec_lite._notebook.html import Displayable
    from easyrec_lite.experiment import Experiment


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    arguments = _arguments.parser(
        "insight",
        "Looks into a trained model: learning curves, calibration, importance of inputs, neighbours of embeddings,\n"
        "other models beside it. Prints tables; --out writes a report with charts.\n"
        "Without --importance and the like: curves, calibration and the distribution of scores.",
    )
    arguments.add_argument("--eval_input_path", action="append", metavar="PATH", help="rows; else the config's")
    arguments.add_argument("--explain", action="store_true", help="the data flow of the config; needs no training")
    arguments.add_argument("--curves", action="store_true", help="learning curves, calibration, scores by label")
    arguments.add_argument(
        "--importance",
        nargs="?",
        const="column",
        choices=("column", "feature", "dropout"),
        help="of columns, by permutation; of single features; or of features by variational dropout",
    )
    arguments.add_argument("--metric", metavar="NAME", help="of --importance; else the first of the config")
    arguments.add_argument("--repeats", type=_arguments.positive, default=5, metavar="N", help="of --importance")
    arguments.add_argument(
        "--neighbours", action="append", default=[], metavar="FEATURE=VALUE", help="nearest embeddings; may be repeated"
    )
    arguments.add_argument("--k", type=_arguments.positive, default=10, metavar="N", help="of --neighbours")
    arguments.add_argument(
        "--compare", action="append", default=[], metavar="DIR", help="model_dir of another model; may be repeated"
    )
    arguments.add_argument("--by", metavar="COLUMN", help="of --compare: draws its values, such as users, not rows")
    arguments.add_argument("--samples", type=_arguments.positive, default=500, metavar="N", help="of --compare")
    arguments.add_argument("--max_rows", type=_arguments.positive, default=50_000, metavar="N", help="rows looked at")
    arguments.add_argument("--seed", type=_arguments.positive, default=1, metavar="N", help="of shuffles and samples")
    arguments.add_argument("--out", metavar="FILE", help="a report in HTML that needs no network")
    options, overrides = _arguments.parse(arguments, argv)
    path = options.config or _arguments.config_in(options.model_dir)
    if not path:
        raise UserError("Which model? Say --model_dir DIR of a training, or --config x.config")

    from easyrec_lite._notebook.html import page
    from easyrec_lite.checkpoints import atomic_write_text
    from easyrec_lite.experiment import Experiment, load_config

    config = load_config(path, overrides)
    if paths := _arguments.path_list(options.eval_input_path):
        config.message.eval_input_path = paths
    if not config.message.model_dir and not options.explain:
        raise UserError("Which model? Say --model_dir DIR of a training.")
    name = Path(config.message.model_dir).name or config.name
    experiment = Experiment(config, name)
    keep_reports_in(experiment.model_dir)
    sections = []
    for title, shown in _sections(experiment, options):
        sections.append((title, shown))
        for heading, frame in _frames(shown):
            table(heading, [str(column) for column in frame.columns], frame.itertuples(index=False, name=None))
    if options.out:
        atomic_write_text(Path(options.out), page(f"{name}: insight", sections))
        print(f"written to {options.out}")
    return 0


def _sections(experiment: Experiment, options: argparse.Namespace) -> Iterator[tuple[str, Displayable]]:
    """What was asked for, one after the other."""
    from easyrec_lite.experiment import Experiment, compare

    asked = options.explain or options.importance or options.neighbours or options.compare
    if options.explain:
        drawing = experiment.explain()
        print(drawing)
        yield "Data flow", drawing
        yield "Parameters", experiment.parameters
    if options.curves or not asked:
        yield "Learning curves", experiment.learning_curves()
        yield "Calibration", experiment.calibration()
        yield "Scores", experiment.score_distribution()
    if options.importance:
        by = options.importance
        if by == "dropout":
            found = experiment.importance(method="dropout", max_rows=options.max_rows, seed=options.seed)
        else:
            found = experiment.importance(
                by=by, metric=options.metric, repeats=options.repeats, max_rows=options.max_rows, seed=options.seed
            )
        yield "Importance", found
    for question in options.neighbours:
        feature, equals, value = question.partition("=")
        if not equals or not feature:
            raise UserError(f"--neighbours: found {question!r}; expected FEATURE=VALUE.")
        yield f"Neighbours of {question}", experiment.neighbours(feature, value, options.k)
    if options.compare:
        others = [Experiment.open(directory) for directory in options.compare]
        rows = experiment.config.message.eval_input_path or None
        yield (
            "Comparison",
            compare(
                [experiment, *others],
                rows,
                by=options.by,
                samples=options.samples,
                max_rows=options.max_rows,
                seed=options.seed,
            ),
        )


def _frames(shown: Displayable) -> Iterator[tuple[str, pd.DataFrame]]:
    """The tables of a section."""
    from easyrec_lite._notebook.views import Comparison, View

    if isinstance(shown, View):
        yield f"{shown.title} ({shown.notes})" if shown.notes else shown.title, shown.frame
    elif isinstance(shown, Comparison):
        yield "Differences of the configs", shown.config
        yield f"Metrics ({shown.notes})", shown.metrics


if __name__ == "__main__":
    sys.exit(main())
