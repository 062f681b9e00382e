"""Checks a config before it costs anything: `python -m easyrec_lite.check x.config`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from easyrec_lite import _arguments
from easyrec_lite.terminal import main_guard, table, warn


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    arguments = _arguments.parser("check", "Names every problem of a config, or says what it describes.")
    arguments.add_argument("file", nargs="?", metavar="FILE", help="the config file")
    arguments.add_argument(
        "--rows", type=_arguments.positive, default=10_000, metavar="N", help="of the training data to look at"
    )
    options, overrides = _arguments.parse(arguments, argv)

    from easyrec_lite import _runs, _summary
    from easyrec_lite.models import Recommender

    config = _runs.load(options.file or options.config, overrides)
    message = config.message
    with _runs.late_errors(config):
        recommender = Recommender(message, training=False, tables=False)
        recommender.build()
        for title, columns, rows in _summary.tables(message, recommender):
            table(title, columns, rows)
        if message.HasField("kafka_train_input"):
            warn(
                f"kafka_train_input: messages of {message.kafka_train_input.topic!r} were not looked at; only files are"
            )
        if not message.train_input_path:
            return 0
        data = _summary.look_at_data(message, recommender, options.rows)
        if data is None:
            warn(f"train_input_path: {message.train_input_path} is not there, so the data was not looked at")
            return 0
        for title, columns, rows in data:
            table(title, columns, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
