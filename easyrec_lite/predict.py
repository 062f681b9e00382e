"""Predicts the rows of files: `python -m easyrec_lite.predict --config x.config --input_path in --output_path out`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from easyrec_lite import _arguments
from easyrec_lite.terminal import keep_reports_in, main_guard, table


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    arguments = _arguments.parser("predict", "Predicts the rows of CSV or Parquet files with a checkpoint.")
    arguments.add_argument("--input_path", required=True, action="append", metavar="PATH", help="files, patterns, lists")
    arguments.add_argument("--output_path", required=True, metavar="FILE", help=".parquet or .csv")
    arguments.add_argument("--checkpoint_path", metavar="PATH", help="a checkpoint; the newest of model_dir if left out")
    arguments.add_argument("--reserved_cols", default="", metavar="A,B", help="columns of the input to hand on")
    arguments.add_argument("--output_cols", default="", metavar="A,B", help="predictions to write; all if left out")
    arguments.add_argument("--output_sep", default=",", metavar="TEXT", help="between the cells of text")
    arguments.add_argument("--batch_size", type=int, default=4096, metavar="N")
    arguments.add_argument(
        "--with_header", nargs="?", const=True, default=True, type=_arguments.boolean, help="of the text that is written"
    )
    options, overrides = _arguments.parse(arguments, argv)

    from easyrec_lite import _runs
    from easyrec_lite._prediction import predictions, write_predictions
    from easyrec_lite.inputs import BadRows, open_source
    from easyrec_lite.serving import restored_recommender

    config = _runs.load(options.config or _arguments.config_in(options.model_dir), overrides)
    message = config.message
    keep_reports_in(_runs.model_dir_of(config))
    _runs.set_threads(message)
    checkpoint = _runs.checkpoint_of(config, options.checkpoint_path)
    recommender = restored_recommender(message, checkpoint)
    keep = [name.strip() for name in options.reserved_cols.split(",") if name.strip()]
    bad_rows = BadRows.from_config(message.data_config)
    source = open_source(
        message.data_config,
        options.input_path,
        columns=list(dict.fromkeys([*recommender.feature_columns, *keep])),
        batch_size=options.batch_size,
        shuffle=False,
        bad_rows=bad_rows,
    )
    outputs = [name.strip() for name in options.output_cols.split(",") if name.strip()]
    path = Path(options.output_path)
    count = write_predictions(
        predictions(recommender, source, keep),
        path,
        outputs=outputs or None,
        separator=options.output_sep.encode().decode("unicode_escape"),
        with_header=options.with_header,
    )
    rows = [
        ("rows predicted", f"{count:,}"),
        ("rows that could not be read", f"{bad_rows.tally.bad:,}"),
        ("written to", str(path)),
        ("checkpoint", str(checkpoint.path)),
    ]
    table("Predicted", ("what", "value"), rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
