"""Exports a trained model for serving: `python -m easyrec_lite.export --config x.config --export_dir d`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from easyrec_lite import _arguments
from easyrec_lite.terminal import keep_reports_in, main_guard, table


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    arguments = _arguments.parser("export", "Writes a SavedModel to EXPORT_DIR/<version>/, for TensorFlow Serving.")
    arguments.add_argument("--export_dir", required=True, metavar="DIR", help="parent of the version folders")
    arguments.add_argument("--checkpoint_path", metavar="PATH", help="a checkpoint; else the newest of model_dir")
    arguments.add_argument("--asset_files", metavar="NAME:PATH,...", help="further files for the export's assets")
    options, overrides = _arguments.parse(arguments, argv)

    from easyrec_lite import _runs
    from easyrec_lite._exporters import asset_files
    from easyrec_lite.config import to_text
    from easyrec_lite.serving import export_model

    config = _runs.load(options.config or _arguments.config_in(options.model_dir), overrides)
    message = config.message
    if options.asset_files:
        message.export_config.asset_files.extend(options.asset_files.split(","))
    keep_reports_in(_runs.model_dir_of(config))
    _runs.set_threads(message)
    with _runs.late_errors(config):
        assets = asset_files(message)
        checkpoint = _runs.checkpoint_of(config, options.checkpoint_path)
        export_dir = Path(options.export_dir)
        path = export_model(message, checkpoint, export_dir, config_text=to_text(message), asset_files=assets)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    rows = [("export", str(path)), ("step", f"{checkpoint.step:,}"), ("size", f"{size / 1e6:.1f} MB")]
    table("Exported", ("what", "value"), rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
