"""What models reach on the generated ads data, beside the best possible and item popularity.

    python -m tools.data.taobao_like --out data/taobao --rows 1000000
    python -m tools.bench.taobao --data data/taobao [--models multi_tower din dssm deepfm dbmtl]

Each model is trained by `python -m easyrec_lite.train` on its sample config, one epoch.

* Ranking models: AUC of clicks. The generator knows the best AUC that any model could reach on the evaluation rows, and
  the AUC of items' smoothed click rates; **closed** is the share of that distance which the model covers (goal: 80 %).
* DSSM: recall@10 of the clicked evaluation rows over the whole item set, by brute force over the vectors of
  `python -m easyrec_lite.predict` (goal: 3 times that of the ten most clicked items).
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from easyrec_lite.terminal import main_guard, table
from tools.bench import _common

MODELS = ("multi_tower", "din", "dssm", "deepfm", "dbmtl")
CLOSED_GOAL, RECALL_GOAL = 0.8, 3.0

_TOP = 10
_USERS_AT_A_TIME = 1024
_RETRIEVAL = "dssm"


@dataclasses.dataclass
class Ranked:
    """A ranking model's AUC of clicks between what popularity gives and the best possible."""

    model: str
    auc: float
    best: float
    popularity: float

    @property
    def closed(self) -> float:
        """The share of the distance from popularity to the best possible that the model covers."""
        return (self.auc - self.popularity) / (self.best - self.popularity)

    @property
    def reached(self) -> bool:
        """Whether that is the goal."""
        return self.closed >= CLOSED_GOAL


@dataclasses.dataclass
class Retrieved:
    """A retrieval model's recall@10 over all items, and that of the most clicked ones on the same rows."""

    model: str
    recall: float
    popularity: float
    rows: int
    items: int

    @property
    def times(self) -> float:
        """How many times popularity's recall."""
        return self.recall / self.popularity

    @property
    def reached(self) -> bool:
        """Whether that is the goal."""
        return self.times >= RECALL_GOAL


def run(model: str, data: Path, edits: Sequence[str] = ()) -> Ranked | Retrieved:
    """Trains a model of `MODELS` and judges it.

    Raises:
        BenchError: the data isn't there, or a command failed.
    """
    meta = _meta(data)
    config = _common.SAMPLES / f"{model}_taobao.config"
    with tempfile.TemporaryDirectory() as folder:
        model_dir = Path(folder) / "model"
        train_path, eval_path = (str(data / part / "*.parquet") for part in ("train", "eval"))
        metrics = _common.train(config, model_dir, train_path, eval_path, edits)
        print(f"{model}: {metrics}", file=sys.stderr)
        if model == _RETRIEVAL:
            return _retrieve(data, model_dir, Path(folder))
    figures = meta["figures"]
    auc = metrics["auc"] if "auc" in metrics else metrics["auc_ctr"]
    return Ranked(model, auc, figures["best_auc_click"], figures["popularity_auc_click"])


def _meta(data: Path) -> dict[str, Any]:
    path = data / "meta.json"
    if not path.exists():
        raise _common.BenchError(f"{path} is missing: make the data by `python -m tools.data.taobao_like --out {data}`")
    meta: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if meta["parameters"]["format"] != "parquet":
        raise _common.BenchError(f"{data}: found {meta['parameters']['format']} files, expected Parquet")
    return meta


def _retrieve(data: Path, model_dir: Path, folder: Path) -> Retrieved:
    rows = pq.read_table(data / "eval")
    clicked = rows.filter(pc.equal(rows["clk"], 1))
    pq.write_table(clicked, folder / "clicked.parquet")
    pq.write_table(item_rows(pq.read_table(data / "items.parquet"), clicked), folder / "items.parquet")
    _, users = _vectors(model_dir, folder / "clicked.parquet", "user_tower_emb")
    ids, items = _vectors(model_dir, folder / "items.parquet", "item_tower_emb")
    targets = clicked["item_id"].to_numpy()
    popular = most_clicked(pq.read_table(data / "train", columns=["item_id", "clk"]))
    return Retrieved(
        _RETRIEVAL,
        recall(users, targets, items, ids, _TOP),
        float(np.isin(targets, popular).mean()),
        len(targets),
        len(ids),
    )


def item_rows(items: pa.Table, rows: pa.Table) -> pa.Table:
    """The item set with the other columns of `rows`, all as in its first row: an item's vector doesn't read them."""
    first = rows.slice(0, 1)
    repeated = first.take(pa.array(np.zeros(items.num_rows, np.int64)))
    others = [name for name in rows.column_names if name not in items.column_names]
    for name in others:
        items = items.append_column(name, repeated[name])
    return items


def _vectors(model_dir: Path, rows: Path, output: str) -> tuple[np.ndarray, npt.NDArray[np.float32]]:
    """Item ids `[N]` and vectors `[N, D]` of the rows of a file, by the predict command."""
    target = rows.with_name(f"{output}.parquet")
    files = [*("--model_dir", str(model_dir)), *("--input_path", str(rows)), *("--output_path", str(target))]
    _common.python(["-m", "easyrec_lite.predict", *files, "--output_cols", output, "--reserved_cols", "item_id"])
    found = pq.read_table(target)
    vectors = found[output].combine_chunks()
    return found["item_id"].to_numpy(), vectors.flatten().to_numpy().reshape(found.num_rows, -1)


def most_clicked(rows: pa.Table, count: int = _TOP) -> np.ndarray:
    """The items with the most clicks, the most clicked first."""
    clicks = rows.filter(pc.equal(rows["clk"], 1))["item_id"].to_numpy()
    ids, counts = np.unique(clicks, return_counts=True)
    return ids[np.argsort(-counts, kind="stable")[:count]]


def recall(
    users: npt.NDArray[np.float32],
    targets: np.ndarray,
    items: npt.NDArray[np.float32],
    ids: np.ndarray,
    top: int,
) -> float:
    """The share of rows whose item is among the `top` most similar of all items; ties count against it.

    Args:
        users: `[N, D]`.
        targets: `[N]` item id of each row.
        items: `[M, D]`.
        ids: `[M]` their ids, each once.
        top: how many.

    Raises:
        BenchError: a target is not among the items.
    """
    order = np.argsort(ids)
    places = order[np.minimum(np.searchsorted(ids, targets, sorter=order), len(ids) - 1)]
    if strangers := np.setdiff1d(targets, ids).tolist():
        raise _common.BenchError(f"Items that were clicked are not in the item set, such as {strangers[:5]}")
    hits = 0
    for start in range(0, len(users), _USERS_AT_A_TIME):
        scores = users[start : start + _USERS_AT_A_TIME] @ items.T
        own = np.take_along_axis(scores, places[start : start + _USERS_AT_A_TIME, None], axis=1)
        hits += int(((scores >= own).sum(axis=1) <= top).sum())
    return hits / len(users)


def show(results: Iterable[Ranked | Retrieved]) -> None:
    """Prints the tables."""
    results = list(results)
    ranked = [
        (
            *(r.model, f"{r.auc:.4f}", f"{r.popularity:.4f}", f"{r.best:.4f}"),
            *(f"{r.closed:.1%}", "yes" if r.reached else "NO"),
        )
        for r in results
        if isinstance(r, Ranked)
    ]
    if ranked:
        columns = ("model", "AUC", "popularity", "best possible", "closed", f"at least {CLOSED_GOAL:.0%}")
        table("Clicks on the generated ads data, one epoch", columns, ranked)
    retrieved = [
        (
            *(r.model, f"{r.recall:.4f}", f"{r.popularity:.4f}", f"{r.times:.1f}"),
            *("yes" if r.reached else "NO", r.rows, r.items),
        )
        for r in results
        if isinstance(r, Retrieved)
    ]
    if retrieved:
        headers = ("model", f"recall@{_TOP}", "popularity", "times", f"at least {RECALL_GOAL:g}", "clicks", "items")
        table(f"Recall@{_TOP} over the whole item set", headers, retrieved)


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 1 if multi_tower, din or dssm misses its goal."""
    parser = _common.parser("taobao", __doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="as tools.data.taobao_like writes it")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS[:3]))
    parser.add_argument("--edit", action="append", default=[], metavar="PATH=VALUE", help="change the configs")
    flags = parser.parse_args(argv)
    results = [run(model, flags.data.resolve(), flags.edit) for model in flags.models]
    show(results)
    _common.keep(flags.json, "taobao", results)
    return 1 if any(not result.reached for result in results if result.model in MODELS[:3]) else 0


if __name__ == "__main__":
    sys.exit(main())
