"""Exports a trained model for serving: `python -m easyrec_lite.export --config x.config --export_dir d`."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easyrec_lite import _arguments
from easyrec_lite.errors import UserError
from easyrec_lite.terminal import keep_reports_in, main_guard, table, warn

if TYPE_CHECKING:
    from easyrec_lite.checkpoints import Checkpoint
    from easyrec_lite.features import Columns
    from easyrec_lite.protos import pipeline_pb2
    from easyrec_lite.serving import ParityReport


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    arguments = _arguments.parser("export", "Writes a SavedModel to EXPORT_DIR/<version>/, for TensorFlow Serving.")
    arguments.add_argument("--export_dir", required=True, metavar="DIR", help="parent of the version folders")
    arguments.add_argument("--checkpoint_path", metavar="PATH", help="a checkpoint; else the newest of model_dir")
    arguments.add_argument("--asset_files", metavar="NAME:PATH,...", help="further files for the export's assets")
    arguments.add_argument(
        "--parity_rows",
        type=_whole,
        default=1000,
        metavar="N",
        help="rows of the evaluation data (else the training data) on which the export must predict what the trainer"
        " predicts; 0 leaves the comparison out",
    )
    arguments.add_argument(
        "--server",
        type=_address,
        metavar="HOST:PORT",
        help="a server (gRPC) that watches EXPORT_DIR: when it serves the version, its answers are compared, too",
    )
    arguments.add_argument(
        "--model_name", default="", metavar="NAME", help="of the model at the server; EXPORT_DIR's name if left out"
    )
    arguments.add_argument(
        "--server_timeout",
        type=_arguments.positive,
        default=120,
        metavar="S",
        help="seconds until the server must serve the version (%(default)s)",
    )
    options, overrides = _arguments.parse(arguments, argv)
    if options.server and not options.parity_rows:
        arguments.error("--server: found --parity_rows 0; expected rows to compare on")

    from easyrec_lite import _runs
    from easyrec_lite._exporters import asset_files
    from easyrec_lite.config import to_text
    from easyrec_lite.serving import PARITY, description, export_model
    from easyrec_lite.serving.export import table_type

    config = _runs.load(options.config or _arguments.config_in(options.model_dir), overrides)
    message = config.message
    if options.asset_files:
        message.export_config.asset_files.extend(options.asset_files.split(","))
    keep_reports_in(_runs.model_dir_of(config))
    _runs.set_up_tensorflow(message)
    with _runs.late_errors(config):
        assets = asset_files(message)
        checkpoint = _runs.checkpoint_of(config, options.checkpoint_path)
        _runs.warn_of_changes(message, checkpoint)
        rows = _rows(message, options.parity_rows, checkpoint) if options.parity_rows else None
        if options.server and rows is None:
            raise UserError(
                "--server: found no rows to compare on; expected files of them, eval_input_path or train_input_path."
            )
        rounding = _rounding(message, checkpoint)
        export_dir = Path(options.export_dir)
        text = to_text(message)
        path = export_model(message, checkpoint, export_dir, config_text=text, asset_files=assets, rows=rows)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    lines = [("export", str(path)), ("step", f"{checkpoint.step:,}"), ("size", f"{size / 1e6:.1f} MB")]
    table("Exported", ("what", "value"), lines)
    if rounding:
        table(f"Tables in {table_type(message)}", ("what", "float32", table_type(message), "difference"), rounding)
    about = description(path)
    table("Signatures", ("signature", "inputs", "outputs"), _signatures(about))
    if rows is not None:
        report = json.loads((path / "assets" / PARITY).read_text())
        title = (
            f"Differences from the trainer on {report['rows']:,} rows and {report['requests']:,} requests of one user"
        )
        differences = _differences(report["differences"])
        live = None
        try:
            if options.server:
                live = _compare_live(options, message, checkpoint, path, rows)
                more = _differences(live.to_json()["differences"])
                differences += [(f"live server: {way}", *numbers) for way, *numbers in more]
        finally:
            table(title, ("signature", "output", "values", "absolute", "relative"), differences)
        if live is not None:
            outcome = f"{path} is written, and the server serves it: take it back by renaming the folder."
            live.raise_if_failed(f"The server {options.server}", outcome)
    return 0


def _rows(config: pipeline_pb2.EasyRecConfig, count: int, checkpoint: Checkpoint) -> Columns | None:
    """The first rows of the evaluation data, or of the training data; None where there are none."""
    from easyrec_lite._sources import sample_path, sample_rows, trained_types
    from easyrec_lite.inputs import MissingFilesError
    from easyrec_lite.models import Recommender

    path = sample_path(config)
    why = f"{path} has no rows." if path else "the config names no files of rows."
    try:
        recommender = Recommender(config, training=False, tables=False)
        rows = sample_rows(config, recommender, count, types=trained_types(checkpoint))
    except MissingFilesError as error:
        rows, why = None, f"there are no rows: {error}"
    if rows is None:
        warn(f"The export is not compared with the trainer, for {why}")
    return rows


def _compare_live(
    options: argparse.Namespace,
    config: pipeline_pb2.EasyRecConfig,
    checkpoint: Checkpoint,
    path: Path,
    rows: Columns,
) -> ParityReport:
    """Waits until the server serves the version, and replays the rows there."""
    from easyrec_lite.serving.live_parity import LiveModel, compare_live

    name = options.model_name or path.parent.resolve().name
    with LiveModel(options.server, name, int(path.name)) as model:
        model.wait(options.server_timeout)
        return compare_live(model, config, checkpoint, path, rows)


def _rounding(config: pipeline_pb2.EasyRecConfig, checkpoint: Checkpoint) -> list[tuple[str, ...]]:
    """What tables in fewer bytes change: their size, and the metrics on the evaluation rows if there are any."""
    from easyrec_lite import _runs, _sources
    from easyrec_lite.embeddings import store_rows
    from easyrec_lite.inputs import MissingFilesError
    from easyrec_lite.serving import restored_recommender
    from easyrec_lite.serving.export import table_type

    kind = table_type(config)
    if kind == "float32":
        return []
    recommender = restored_recommender(config, checkpoint)
    tables = list(recommender.collection.variables_by_bucket.values())
    evaluate = None
    if _sources.can_evaluate(config):
        with contextlib.suppress(MissingFilesError):
            evaluate = _runs.evaluator(config, recommender, types=_sources.trained_types(checkpoint))
    before = evaluate() if evaluate else {}
    stored = [store_rows(table, kind) for table in tables]
    after = evaluate() if evaluate else {}
    sizes = [
        sum(math.prod(v.shape) * v.dtype.size for v in variables)
        for variables in (tables, [v for rows in stored for v in rows.variables])
    ]
    size = ("size", *(f"{size / 1e6:,.1f} MB" for size in sizes), f"{sizes[1] / sizes[0]:.0%}")
    return [size, *((n, f"{x:.6f}", f"{after[n]:.6f}", f"{after[n] - x:+.6f}") for n, x in before.items())]


def _signatures(about: dict[str, Any]) -> list[tuple[str, str, str]]:
    sides = {column["name"]: column["side"] for column in about["columns"]}
    return [
        (name, _inputs(signature["inputs"], sides), ", ".join(signature["outputs"]))
        for name, signature in about["signatures"].items()
    ]


def _inputs(names: Sequence[str], sides: dict[str, str]) -> str:
    counts = {side: sum(sides.get(name) == side for name in names) for side in ("user", "item")}
    parts = [f"{count} columns of the {side}" for side, count in counts.items() if count]
    return ", ".join([*parts, *(name for name in names if name not in sides)])


def _differences(found: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    return [(d["way"], d["output"], f"{d['values']:,}", f"{d['absolute']:.1e}", f"{d['relative']:.1e}") for d in found]


def _whole(text: str) -> int:
    """Reads a whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"found {text!r}; expected a whole number of at least 0")
    return int(text)


def _address(text: str) -> str:
    """Reads `host:port`."""
    host, colon, port = text.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
        raise argparse.ArgumentTypeError(f"found {text!r}; expected HOST:PORT, such as 127.0.0.1:8500")
    return text


if __name__ == "__main__":
    sys.exit(main())
