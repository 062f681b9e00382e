"""What a search is worth on MovieLens-1M: tuned on the validation rows, reported on the test rows.

    python -m tools.data.movielens --source ml-1m --out data/ml-1m-temporal --protocol temporal
    python -m tools.bench.hpo --data data/ml-1m-temporal [--trials 40] [--studies 3] [--workers 2]

Each study is `python -m easyrec_lite.hpo` on the DeepFM sample and its sample space, once with TPESampler, Optuna's
default, and once with RandomSampler: the same number of trials, the same pruner, the same seed. The best config of
each, and the sample config, are then trained anew with seeds that no trial has seen, and evaluated on the test rows. A
pair is the two studies of one seed; intervals are Student's over the pairs.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

from easyrec_lite.terminal import main_guard, table
from tools.bench import _common

CONFIG = _common.SAMPLES / "deepfm_movielens.config"
SPACE = _common.ROOT / "samples" / "spaces" / "deepfm_movielens.config"
_EVALUATIONS = ("train_config.save_checkpoints_steps=0", "train_config.save_checkpoints_rows=200000")
_FRESH_SEEDS = (101, 102, 103)
# 97.5 % quantile of Student's t by degrees of freedom.
_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


@dataclasses.dataclass
class Result:
    """A search, or the sample config.

    Attributes:
        sampler: what chose the trials; "none" of the sample config.
        seed: of the study.
        valid: the best trial's AUC on the validation rows.
        test: AUCs on the test rows, one a fresh seed.
        seconds: of the search.
        complete: trials that were trained to their end.
    """

    sampler: str
    seed: int
    valid: float
    test: list[float]
    seconds: float
    complete: int

    @property
    def mean_test(self) -> float:
        """Over the seeds."""
        return fmean(self.test)


def search(data: Path, folder: Path, sampler: str, seed: int, trials: int, workers: int) -> Result:
    """Runs a study and trains its best config anew."""
    space = folder / f"{sampler}.config"
    text = SPACE.read_text(encoding="utf-8")
    space.write_text(f'{text}\nsampler {{ name: "{sampler}" }}\n', encoding="utf-8")
    out = folder / f"{sampler}-{seed}"
    paths = ["--train_input_path", str(data / "train.parquet"), "--eval_input_path", str(data / "valid.parquet")]
    counts = ["--trials", str(trials), "--workers", str(workers), "--seed", str(seed)]
    edits = [word for edit in _EVALUATIONS for word in ("--edit", edit)]
    start = time.monotonic()
    command = ["-m", "easyrec_lite.hpo", "--config", str(CONFIG), "--space", str(space), "--model_dir", str(out)]
    _common.python([*command, *paths, *counts, *edits], quiet=False)
    seconds = time.monotonic() - start
    with open(out / "trials.csv", encoding="utf-8", newline="") as file:
        records = [record for record in csv.DictReader(file) if record["state"] == "COMPLETE"]
    valid = max(float(record["auc"]) for record in records)
    result = Result(sampler, seed, valid, _test(out / "best.config", data, folder), seconds, len(records))
    print(f"{sampler} seed {seed}: valid {valid:.4f} test {result.mean_test:.4f}, {seconds:.0f} s", file=sys.stderr)
    return result


def sample(data: Path, folder: Path) -> Result:
    """The sample config as it is."""
    valid = _common.train(
        CONFIG, folder / "sample", str(data / "train.parquet"), str(data / "valid.parquet"), _EVALUATIONS
    )
    return Result("none", 0, valid["auc"], _test(CONFIG, data, folder), 0.0, 1)


def _test(config: Path, data: Path, folder: Path) -> list[float]:
    aucs = []
    for seed in _FRESH_SEEDS:
        with tempfile.TemporaryDirectory(dir=folder) as model:
            train, test = str(data / "train.parquet"), str(data / "test.parquet")
            metrics = _common.train(config, Path(model) / "model", train, test, [f"train_config.seed={seed}"])
        aucs.append(metrics["auc"])
    return aucs


def interval(differences: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % interval of paired differences; infinitely wide of a single one."""
    mean = fmean(differences)
    if len(differences) < 2:
        return mean, -math.inf, math.inf
    half = _T[len(differences) - 1] * stdev(differences) / math.sqrt(len(differences))
    return mean, mean - half, mean + half


def show(base: Result, tuned: Sequence[Result], random: Sequence[Result]) -> bool:
    """Prints the tables; returns whether the search did what it is for."""
    columns = ("config", "seed", "AUC valid", "AUC test", "complete trials", "minutes")
    lines = [
        (r.sampler, r.seed or None, f"{r.valid:.4f}", f"{r.mean_test:.4f}", r.complete, f"{r.seconds / 60:.1f}")
        for r in (base, *(result for pair in zip(tuned, random, strict=True) for result in pair))
    ]
    table("MovieLens-1M, temporal protocol, DeepFM, one epoch", columns, lines)
    comparisons = {
        "tuned - sample": [result.mean_test - base.mean_test for result in tuned],
        "tuned - random": [mine.mean_test - other.mean_test for mine, other in zip(tuned, random, strict=True)],
        "random - sample": [result.mean_test - base.mean_test for result in random],
    }
    rows = {name: interval(differences) for name, differences in comparisons.items()}
    shown = [(name, *(f"{number:+.4f}" for number in numbers)) for name, numbers in rows.items()]
    table("Differences of the test AUC", ("what", "mean", "95 % from", "to"), shown)
    return min(comparisons["tuned - sample"]) > 0 and rows["tuned - random"][2] >= 0


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 1 if tuning did not beat the sample, or fell behind random search."""
    parser = _common.parser("hpo", __doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the temporal protocol's files")
    parser.add_argument("--trials", type=int, default=40, metavar="N", help="of each study")
    parser.add_argument("--studies", type=int, default=3, metavar="N", help="with seeds 1 to N; at most 10")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes of a study")
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep the studies there, and go on with them")
    flags = parser.parse_args(argv)
    data = flags.data.resolve()
    for name in ("train", "valid", "test"):
        if not (data / f"{name}.parquet").exists():
            raise _common.BenchError(f"{data / name}.parquet is missing: make it by `python -m tools.data.movielens`")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (flags.out or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        done: dict[str, list[Result]] = {"none": [_kept(folder, "none", 0) or _keep(folder, sample(data, folder))]}
        for seed in range(1, flags.studies + 1):
            for sampler in ("TPESampler", "RandomSampler"):
                result = _kept(folder, sampler, seed)
                result = result or _keep(folder, search(data, folder, sampler, seed, flags.trials, flags.workers))
                done.setdefault(sampler, []).append(result)
    good = show(done["none"][0], done["TPESampler"], done["RandomSampler"])
    _common.keep(flags.json, "hpo", done)
    return 0 if good else 1


def _keep(folder: Path, result: Result) -> Result:
    path = folder / f"{result.sampler}-{result.seed}.json"
    path.write_text(json.dumps(dataclasses.asdict(result)), encoding="utf-8")
    return result


def _kept(folder: Path, sampler: str, seed: int) -> Result | None:
    path = folder / f"{sampler}-{seed}.json"
    return Result(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
