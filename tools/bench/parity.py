"""Whether exports of all samples predict what the trainer predicts, on real rows.

    python -m tools.data.taobao_like --out data/taobao --rows 1000000
    python -m tools.bench.parity --taobao data/taobao [--movielens data/movielens] [--rows 1000]

Each model is trained by `python -m easyrec_lite.train` on its sample config, 300 steps, and exported by `python -m
easyrec_lite.export`, with a cache of user states where the sample says which columns are the user's. The export is
loaded by TensorFlow's C++ loader, and its signatures are asked for the first rows of the evaluation data: all rows at
once, and in requests of one user each. Shown are the largest differences from the trainer. More than 1e-5 + 1e-5 *
|prediction| fails the export, and so this command.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from easyrec_lite.serving import PARITY
from easyrec_lite.terminal import main_guard, table
from tools.bench import _common

SAMPLES = {
    "taobao": ("multi_tower", "din", "dssm", "dbmtl", "deepfm"),
    "movielens": ("multi_tower", "deepfm"),
}
_PATHS = {"taobao": ("train/*.parquet", "eval/*.parquet"), "movielens": ("train.parquet", "test.parquet")}
_STEPS = 300
_EDITS = {  # of MovieLens no sample says which columns are the user's
    "taobao": ("export_config.user_cache.slots=4096",),
    "movielens": (),
}


@dataclasses.dataclass
class Parity:
    """Of one export.

    Attributes:
        sample: the config's name.
        rows: that were replayed.
        requests: of one user each.
        ways: to ask it, each with the largest absolute difference of any output.
    """

    sample: str
    rows: int
    requests: int
    ways: dict[str, float]


def run(model: str, data: str, folder: Path, rows: int) -> Parity:
    """Trains a sample, exports it, and reads the export's report.

    Raises:
        BenchError: a command failed, as an export does that predicts something else.
    """
    sample = f"{model}_{data}"
    train_path, eval_path = (str(folder / path) for path in _PATHS[data])
    with tempfile.TemporaryDirectory() as place:
        model_dir, export_dir = Path(place) / "model", Path(place) / "export"
        edits = (f"train_config.num_steps={_STEPS}", "eval_config.num_examples=10000", *_EDITS[data])
        _common.train(_common.SAMPLES / f"{sample}.config", model_dir, train_path, eval_path, edits)
        flags = ("--model_dir", model_dir, "--export_dir", export_dir, "--parity_rows", str(rows))
        _common.python(["-m", "easyrec_lite.export", *flags])
        (version,) = export_dir.iterdir()
        report = json.loads((version / "assets" / PARITY).read_text(encoding="utf-8"))
    ways: dict[str, float] = {}
    for difference in report["differences"]:
        ways[difference["way"]] = max(ways.get(difference["way"], 0.0), difference["absolute"])
    return Parity(sample, report["rows"], report["requests"], ways)


@main_guard
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = _common.parser("parity", __doc__)
    parser.add_argument("--taobao", type=Path, metavar="DIR", help="rows of tools.data.taobao_like")
    parser.add_argument("--movielens", type=Path, metavar="DIR", help="rows of tools.data.movielens")
    parser.add_argument("--rows", type=int, default=1000, help="to replay (default: %(default)s)")
    options = parser.parse_args(arguments)
    folders = {"taobao": options.taobao, "movielens": options.movielens}
    chosen = [(model, data) for data, models in SAMPLES.items() if folders[data] for model in models]
    if not chosen:
        parser.error("found no rows; expected --taobao DIR, --movielens DIR, or both")
    found = []
    for model, data in chosen:
        found.append(run(model, data, folders[data], options.rows))
        print(f"{found[-1]}", file=sys.stderr)
    ways = list(dict.fromkeys(way for parity in found for way in parity.ways))
    lines = [
        (
            one.sample,
            f"{one.rows:,}",
            f"{one.requests:,}",
            *(f"{one.ways[w]:.1e}" if w in one.ways else "" for w in ways),
        )
        for one in found
    ]
    table("Largest differences from the trainer, absolute", ("sample", "rows", "requests", *ways), lines)
    _common.keep(options.json, "parity", found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
