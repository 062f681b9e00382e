"""Predicts the rows of files: `python -m easyrec_lite.predict --config x.config --input_path in --output_path out`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from easyrec_lite import _arguments
from easyrec_lite.errors import UserError
from easyrec_lite.terminal import keep_reports_in, main_guard, table


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    arguments = _arguments.parser("predict", "Predicts the rows of CSV or Parquet files with a checkpoint.")
    arguments.add_argument(
        "--input_path", required=True, action="append", metavar="PATH", help="files, patterns, lists"
    )
    arguments.add_argument("--output_path", required=True, metavar="FILE", help=".parquet or .csv")
    arguments.add_argument("--checkpoint_path", metavar="PATH", help="a checkpoint; else the newest of model_dir")
    arguments.add_argument("--reserved_cols", default="", metavar="A,B", help="columns of the input to hand on")
    arguments.add_argument("--output_cols", default="", metavar="A,B", help="predictions to write; all if left out")
    arguments.add_argument("--output_sep", default=",", metavar="TEXT", help="between the cells of text")
    arguments.add_argument("--batch_size", type=_arguments.positive, default=4096, metavar="N")
    arguments.add_argument(
        "--with_header",
        nargs="?",
        const=True,
        default=True,
        type=_arguments.boolean,
        help="of the text that is written",
    )
    options, overrides = _arguments.parse(arguments, argv)

    from easyrec_lite import _runs
    from easyrec_lite._prediction import predictions, write_predictions
    from easyrec_lite._sources import trained_types
    from easyrec_lite.inputs import BadRows, open_source

    config = _runs.load(options.config or _arguments.config_in(options.model_dir), overrides)
    message = config.message
    keep_reports_in(_runs.model_dir_of(config))
    separator, path = _separator(options.output_sep), _output(options.output_path)
    _runs.set_up_tensorflow(message)
    checkpoint = _runs.checkpoint_of(config, options.checkpoint_path)
    keep = list(dict.fromkeys(name.strip() for name in options.reserved_cols.split(",") if name.strip()))
    outputs = [name.strip() for name in options.output_cols.split(",") if name.strip()]
    bad_rows = BadRows.from_config(message.data_config)
    with _runs.late_errors(config):
        recommender = _runs.restored(message, checkpoint)
        source = open_source(
            message.data_config,
            options.input_path,
            columns=recommender.feature_columns,
            batch_size=options.batch_size,
            shuffle=False,
            bad_rows=bad_rows,
            keep=keep,
            types=trained_types(checkpoint),
        )
        count = write_predictions(
            predictions(recommender, source),
            path,
            outputs=outputs or None,
            separator=separator,
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


def _separator(text: str) -> str:
    r"""The one character that `text` names; tabs and the like may be written as in Python, `\t` or `\x01`."""
    try:
        read = text.encode().decode("unicode_escape")
    except UnicodeDecodeError:
        read = text
    if len(read) != 1 or not read.isascii() or read in '"\r\n':
        raise UserError(f"--output_sep: found {text!r}; expected one character, such as , or \\t")
    return read


def _output(text: str) -> Path:
    if not text or Path(text).is_dir():
        found = f"the folder {text}" if text else "nothing"
        raise UserError(f"--output_path: found {found}; expected a file to write, ending in .parquet or .csv")
    return Path(text)


if __name__ == "__main__":
    sys.exit(main())
