"""The items of a two-tower model as vectors, and an index that finds those which suit a user best.

A directory holds

    vectors.parquet   ids and vectors
    items.faiss       the index, if one was built; it knows the items by their row in vectors.parquet
    index.json        what the two are, and how well the index finds what brute force finds

The score of an item is the inner product of its vector and the user's. For cosine similarity exports give vectors of
length 1, so that is the cosine; what a model does with it further (a temperature, a learned scale) rises with it and
changes no rank.
"""

from __future__ import annotations

import functools
import importlib
import json
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from easyrec_lite.checkpoints import atomic_directory, atomic_write_json
from easyrec_lite.errors import UserError

VECTORS, INDEX, ABOUT = "vectors.parquet", "items.faiss", "index.json"
VECTOR = "vector"
FORMAT = 1

# Kinds of indexes with their parameters, named as faiss names them, and what those are if nobody says.
KINDS: Mapping[str, Mapping[str, int]] = {
    "flat": {},
    "hnsw": {"M": 32, "efConstruction": 200, "efSearch": 64},
    "ivf": {"nlist": 0, "nprobe": 16},  # nlist 0: by the number of items
}

_POINTS_A_LIST = 39  # below that faiss warns that its k-means has too few
_BLOCK_SCORES = 1 << 24  # at a time: 64 MiB
_TIMED = 200  # queries that are asked one by one
_ROUNDING = 8 * np.finfo(np.float32).eps  # of an inner product, relative to the lengths of the vectors

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]


class ItemIndexError(UserError):
    """The items, the directory of an index or a query can't be used."""


class ItemIndex:
    """Finds the items that suit users best.

        index = ItemIndex("index/1795306588")
        ids, scores = index.search(LoadedModel(version)("user_embedding", columns)["user_tower_emb"], 10)

    Without an index in the directory, or without faiss, it compares with all items.

    Args:
        path: what `python -m easyrec_lite.index` wrote.
        exact: compare with all items in any case.

    Attributes:
        about: what index.json says.
        ids: of the items, `[M]`: int64, or text as objects.
        uses_faiss: whether the index is asked.

    Raises:
        ItemIndexError: there is no such directory, or it is not whole.
    """

    def __init__(self, path: str | os.PathLike[str], exact: bool = False) -> None:
        self.path = Path(path)
        self.about = _about(self.path)
        self.ids = _ids(self.path, self.about)
        self._index: Any = None
        if self.about["index"] is not None and not exact and (faiss := _faiss()) is not None:
            try:
                self._index = faiss.read_index(str(self.path / INDEX))
            except RuntimeError:
                raise _damaged(self.path / INDEX, "an index that faiss can read") from None
            if self._index.ntotal != len(self.ids):
                raise _damaged(self.path / INDEX, f"{len(self.ids):,} items, as in {VECTORS}")
        self.uses_faiss = self._index is not None

    @property
    def dimension(self) -> int:
        """Numbers a vector."""
        return int(self.about["dimension"])

    @functools.cached_property
    def vectors(self) -> Floats:
        """The items' vectors `[M, D]`; read when they are asked for."""
        column = pq.read_table(self.path / VECTORS, columns=[VECTOR])[VECTOR]
        flat = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
        return np.concatenate(flat).astype(np.float32, copy=False).reshape(-1, self.dimension)

    def search(self, vectors: npt.ArrayLike, k: int) -> tuple[np.ndarray, Floats]:
        """The ids and scores of the k best items, `[N, k]` each, the best first.

        Args:
            vectors: of users, `[N, D]`.
            k: how many; at most the number of items.

        Raises:
            ItemIndexError: vectors of another shape, or k is out of range.
        """
        places, scores = self.places(vectors, k)
        return self.ids[places], scores

    def places(self, vectors: npt.ArrayLike, k: int) -> tuple[Places, Floats]:
        """As `search`, but with the items' places in `ids` instead of their ids."""
        queries = self._queries(vectors, k)
        if self._index is None:
            return self._compare(queries, k)
        scores, places = self._index.search(queries, k)
        # An approximate index that looked at too few items answers -1 for the rest.
        short = np.flatnonzero((places < 0).any(axis=1))
        if len(short):
            places[short], scores[short] = self._compare(queries[short], k)
        return places, scores

    def _queries(self, vectors: npt.ArrayLike, k: int) -> Floats:
        queries = np.ascontiguousarray(vectors, np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.dimension:
            raise ItemIndexError(f"vectors: found shape {list(queries.shape)}; expected [N, {self.dimension}].")
        if not 1 <= k <= len(self.ids):
            raise ItemIndexError(f"k: found {k}; expected 1 to {len(self.ids)}, the number of items.")
        return queries

    def _compare(self, queries: Floats, k: int) -> tuple[Places, Floats]:
        places, best = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
        for rows, scores in _score_blocks(queries, self.vectors):
            found = np.argpartition(scores, -k, axis=1)[:, -k:]
            found.sort(axis=1)  # of equals the first item comes first
            own = np.take_along_axis(scores, found, axis=1)
            order = np.argsort(-own, axis=1, kind="stable")
            places[rows], best[rows] = (np.take_along_axis(x, order, axis=1) for x in (found, own))
        return places, best


@dataclass(frozen=True)
class Recall:
    """How much of what brute force finds an index finds.

    Attributes:
        k: items that are asked for.
        recall: the share of the k found ones that belong to the k best, mean over the queries. Items that score like
            the k-th best one belong to them.
        index_ms: median time of one query by the index, milliseconds.
        exact_ms: the same by brute force.
    """

    k: int
    recall: float
    index_ms: float
    exact_ms: float


def measure(index: ItemIndex, queries: Floats, ks: Sequence[int]) -> list[Recall]:
    """Compares an index with brute force, a matrix product in NumPy, on vectors of users `[N, D]`."""
    exact = ItemIndex(index.path, exact=True)
    items = exact.vectors
    # Other orders of summation than NumPy's give other last bits; those make no item worse than another.
    slack = _ROUNDING * np.linalg.norm(queries, axis=1) * np.linalg.norm(items, axis=1).max()
    measured = []
    for k in ks:
        places, _ = index.places(queries, k)  # for each k anew: with a larger one HNSW searches further
        hits = 0
        for rows, scores in _score_blocks(queries, items):
            worst = np.partition(scores, -k, axis=1)[:, -k] - slack[rows]
            hits += int((np.take_along_axis(scores, places[rows], axis=1) >= worst[:, None]).sum())
        times: list[list[float]] = [[], []]
        for query in queries[:_TIMED, None]:
            for way, taken in zip((index, exact), times, strict=True):  # in turns: other load meets both alike
                start = time.perf_counter()
                way.places(query, k)
                taken.append(time.perf_counter() - start)
        index_ms, exact_ms = (1000 * float(np.median(taken)) for taken in times)
        measured.append(Recall(k, hits / places.size, index_ms, exact_ms))
    return measured


def write_item_index(
    path: str | os.PathLike[str],
    item_id: str,
    batches: Iterable[tuple[pa.Array, Floats]],
    *,
    similarity: str,
    model: Mapping[str, Any],
    kind: str | None = "flat",
    parameters: Mapping[str, int] | None = None,
    queries: Floats | None = None,
    ks: Sequence[int] = (10, 100),
) -> dict[str, Any]:
    """Writes the directory of an index, whole or not at all; returns what its index.json says.

    Args:
        path: must not exist, or be an empty directory.
        item_id: name of the column of ids.
        batches: ids (int64 or string, without nulls) `[B]` and vectors `[B, D]` of items. Of items with one id the
            first is kept; the others are counted.
        similarity: of the model, to be told: "cosine" or "inner_product".
        model: what is known of it, such as its version and step; for the metadata of the Parquet file too.
        kind: one of KINDS; None builds none.
        parameters: of the index, in place of those of KINDS.
        queries: vectors of users `[N, D]` on which the index is compared with brute force; None leaves that out.
        ks: numbers of items for that; those above the number of items become that number.

    Raises:
        ItemIndexError: the path is taken, faiss is missing, or parameters, ids or vectors can't be used.
    """
    path = Path(path)
    check_target(path)
    used = index_parameters(kind, parameters or {}) if kind is not None else {}
    known = {"similarity": similarity, "metric": "inner_product"}
    with atomic_directory(path) as temporary:
        count, dimension, duplicates = _write_vectors(temporary / VECTORS, item_id, batches, {**known, **model})
        about: dict[str, Any] = {
            "format": FORMAT,
            "item_id": item_id,
            "items": count,
            "duplicates": duplicates,
            "dimension": dimension,
            **known,
            "model": dict(model),
            "index": None,
            "recall": None,
        }
        atomic_write_json(temporary / ABOUT, about)
        if kind is not None:
            faiss = require_faiss()
            index, used = _build(faiss, ItemIndex(temporary).vectors, kind, used)
            faiss.write_index(index, str(temporary / INDEX))
            del index
            about["index"] = {"kind": kind, "parameters": used, "faiss": faiss.__version__}
            atomic_write_json(temporary / ABOUT, about)
            if queries is not None:
                found = measure(ItemIndex(temporary), queries, sorted({min(k, count) for k in ks}))
                about["recall"] = {"queries": len(queries), "at": [vars(one) for one in found]}
                atomic_write_json(temporary / ABOUT, about)
    return about


def check_target(path: Path) -> None:
    """Refuses a path that holds something: files that are replaced one by one would for a moment be of two models."""
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        what = "an item index" if (path / ABOUT).exists() else "files"
        raise ItemIndexError(f"{path}: found {what}; expected nothing there. Name another directory, one a version.")


def index_parameters(kind: str, given: Mapping[str, int]) -> dict[str, int]:
    """All parameters of a kind of index, those that are given in place of the usual ones.

    Raises:
        ItemIndexError: no such parameter, or out of range.
    """
    known = KINDS[kind]
    for name, value in given.items():
        if name not in known:
            expected = f"one of {', '.join(known)}" if known else "none"
            raise ItemIndexError(f"Parameter {name!r}: index {kind!r} has no such parameter; expected {expected}.")
        least = 2 if name == "M" else 0 if name == "nlist" else 1
        if value < least:
            raise ItemIndexError(f"Parameter {name!r}: found {value}; expected at least {least}.")
    return {**known, **given}


def require_faiss() -> Any:
    """The module, or an ItemIndexError that says how to install it."""
    if (faiss := _faiss()) is None:
        raise ItemIndexError(
            "faiss: not installed; an index needs it. Install it by: pip install 'easyrec_lite[faiss]'"
            " or leave the index out (--index none): ItemIndex then compares with all items."
        )
    return faiss


def _faiss() -> Any:
    try:
        return importlib.import_module("faiss")
    except ModuleNotFoundError as error:
        if error.name != "faiss":
            raise
        return None


def _build(faiss: Any, vectors: Floats, kind: str, parameters: Mapping[str, int]) -> tuple[Any, dict[str, int]]:
    count, dimension = vectors.shape
    used, metric = dict(parameters), faiss.METRIC_INNER_PRODUCT
    if kind == "flat":
        index = faiss.IndexFlatIP(dimension)
    elif kind == "hnsw":
        # Malkov and Yashunin, 2018
        index = faiss.IndexHNSWFlat(dimension, used["M"], metric)
        index.hnsw.efConstruction, index.hnsw.efSearch = used["efConstruction"], used["efSearch"]
    else:
        if used["nlist"] > count:
            raise ItemIndexError(f"Parameter 'nlist': found {used['nlist']}; expected at most {count}, the items.")
        used["nlist"] = used["nlist"] or max(1, min(int(4 * math.sqrt(count)), count // _POINTS_A_LIST))
        used["nprobe"] = min(used["nprobe"], used["nlist"])
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dimension), dimension, used["nlist"], metric)
        index.nprobe = used["nprobe"]
        index.train(vectors)
    index.add(vectors)
    return index, used


def _write_vectors(
    path: Path, item_id: str, batches: Iterable[tuple[pa.Array, Floats]], metadata: Mapping[str, Any]
) -> tuple[int, int, int]:
    """Writes ids and vectors; returns the number of items, the dimension, and the number of duplicates left out."""
    if item_id == VECTOR:
        raise ItemIndexError(f"Column {item_id!r}: found it as the column of ids; expected another name.")
    seen: set[int | str] = set()
    duplicates, writer, schema = 0, None, None
    try:
        for ids, vectors in batches:
            if not np.isfinite(vectors).all():
                at = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
                raise ItemIndexError(
                    f"Item {ids[at].as_py()!r}: found a vector with NaN or infinity; expected numbers."
                    " The model may have diverged: look at its loss."
                )
            new = _unseen(ids, seen)
            duplicates += len(ids) - len(new)
            ids, vectors = ids.take(pa.array(new)), vectors[new]
            if writer is None:
                vector = pa.list_(pa.float32(), vectors.shape[1])
                schema = pa.schema([(item_id, ids.type), (VECTOR, vector)])
                schema = schema.with_metadata({"easyrec_lite": json.dumps(dict(metadata))})
                writer = pq.ParquetWriter(path, schema, use_dictionary=False)
            flat = pa.array(vectors.reshape(-1))
            lists = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
            writer.write_table(pa.table([ids, lists], schema=schema))
    finally:
        if writer is not None:
            writer.close()
    if schema is None:
        raise ItemIndexError("The items: found none; expected at least one.")
    return len(seen), schema.field(VECTOR).type.list_size, duplicates


def _unseen(ids: pa.Array, seen: set[int | str]) -> Places:
    """The places of ids that come for the first time."""
    first = {value: place for place, value in reversed([*enumerate(ids.to_pylist())]) if value not in seen}
    seen.update(first)
    return np.sort(np.array([*first.values()], np.int64))


def _score_blocks(queries: Floats, items: Floats) -> Iterable[tuple[slice, Floats]]:
    """The scores of all items, for some queries at a time."""
    step = max(1, _BLOCK_SCORES // len(items))
    for start in range(0, len(queries), step):
        rows = slice(start, start + step)
        yield rows, queries[rows] @ items.T


def _about(path: Path) -> dict[str, Any]:
    try:
        about: dict[str, Any] = json.loads((path / ABOUT).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ItemIndexError(
            f"{path}: found no {ABOUT}; expected the directory of an item index. Make one by: python -m"
            " easyrec_lite.index --export_dir EXPORTS --items FILE --item_id COLUMN --index_dir DIR"
        ) from None
    except ValueError:
        raise _damaged(path / ABOUT, "JSON") from None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise _damaged(path / ABOUT, f"format {FORMAT} of an item index")
    return about


def _ids(path: Path, about: Mapping[str, Any]) -> np.ndarray:
    try:
        column = pq.read_table(path / VECTORS, columns=[about["item_id"]]).column(0)
    except (OSError, pa.ArrowException, LookupError):
        raise _damaged(path / VECTORS, "ids and vectors") from None
    if len(column) != about["items"]:
        raise _damaged(path / VECTORS, f"{about['items']:,} items, as {ABOUT} says")
    return np.asarray(column.to_numpy())


def _damaged(path: Path, expected: str) -> ItemIndexError:
    return ItemIndexError(f"{path}: found something else; expected {expected}. Write the index again.")
