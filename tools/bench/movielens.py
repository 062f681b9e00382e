"""AUC on MovieLens-1M over several seeds, beside EasyRec's on the same split.

    python -m tools.data.movielens --source ml-1m --out data/movielens --protocol random
    python -m tools.bench.movielens --data data/movielens [--seeds 5]

Each run is `python -m easyrec_lite.train` on the sample config with another seed: one epoch, batch 1,024. EasyRec 0.8.7
was measured on this split with its own sample configs (mean of 2 runs, AUC by 200 thresholds; ours is exact). A random
split leaks across users and time, so these AUCs are for comparison only. Some copies of the data have interpolated
timestamps; nothing here reads them.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from easyrec_lite.terminal import main_guard, table
from tools.bench import _common


@dataclasses.dataclass(frozen=True)
class Target:
    """What EasyRec reaches with a model; the best of its configs where it has several.

    Attributes:
        auc: mean of the runs.
        gauc: of the same config.
        of: which config.
    """

    auc: float
    gauc: float
    of: str


TARGETS = {
    "multi_tower_movielens": (Target(0.8614, 0.7886, "backbone"),),
    "deepfm_movielens": (Target(0.8692, 0.7983, "backbone"), Target(0.8681, 0.7992, "classic")),
}


@dataclasses.dataclass
class Runs:
    """The metrics of one config, a value a seed."""

    config: str
    seeds: list[int]
    auc: list[float]
    gauc: list[float]

    @property
    def reached(self) -> bool | None:
        """Whether the mean AUC is at least that of each of EasyRec's configs; None where there is none."""
        targets = TARGETS.get(self.config)
        return all(fmean(self.auc) >= target.auc for target in targets) if targets else None


def run(config: Path, data: Path, seeds: Sequence[int], edits: Sequence[str] = ()) -> Runs:
    """Trains a config once a seed.

    Raises:
        BenchError: the data isn't there, or a training failed.
    """
    for name in ("train", "test"):
        if not (data / f"{name}.parquet").exists():
            raise _common.BenchError(f"{data / name}.parquet is missing: make it by `python -m tools.data.movielens`")
    runs = Runs(config.stem, list(seeds), [], [])
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            metrics = _common.train(
                config,
                Path(folder) / "model",
                str(data / "train.parquet"),
                str(data / "test.parquet"),
                [f"train_config.seed={seed}", *edits],
            )
        runs.auc.append(metrics["auc"])
        runs.gauc.append(metrics["gauc"])
        print(f"{config.stem} seed {seed}: AUC {metrics['auc']:.4f} GAUC {metrics['gauc']:.4f}", file=sys.stderr)
    return runs


def show(results: Sequence[Runs]) -> None:
    """Prints the table."""
    columns = ("config", "metric", "mean", "sd", "min", "max", "seeds", "EasyRec", "at least EasyRec's")
    lines = []
    for runs in results:
        targets = TARGETS.get(runs.config, ())
        for metric, values, known in (
            ("AUC", runs.auc, [target.auc for target in targets]),
            ("GAUC", runs.gauc, [target.gauc for target in targets]),
        ):
            mean, deviation = _common.mean_and_deviation(values)
            theirs = ", ".join(f"{value:.4f} ({t.of})" for value, t in zip(known, targets, strict=True))
            reached = ("yes" if all(mean >= value for value in known) else "NO") if known else None
            numbers = (f"{value:.4f}" for value in (mean, deviation, min(values), max(values)))
            lines.append((runs.config, metric, *numbers, len(values), theirs or None, reached))
    table("MovieLens-1M, random protocol, one epoch", columns, lines)


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 1 if a mean AUC is below EasyRec's."""
    parser = _common.parser("movielens", __doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="as tools.data.movielens writes it")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="seeds 1 to N")
    configs = [_common.SAMPLES / f"{name}.config" for name in TARGETS]
    parser.add_argument("--configs", type=Path, nargs="+", default=configs, metavar="FILE")
    parser.add_argument("--edit", action="append", default=[], metavar="PATH=VALUE", help="change the configs")
    flags = parser.parse_args(argv)
    data = flags.data.resolve()
    results = [run(path.resolve(), data, range(1, flags.seeds + 1), flags.edit) for path in flags.configs]
    show(results)
    _common.keep(flags.json, "movielens", results)
    return 1 if any(runs.reached is False for runs in results) else 0


if __name__ == "__main__":
    sys.exit(main())
