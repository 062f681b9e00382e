"""What lies near a value in a trained embedding table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import tensorflow as tf

from easyrec_lite.config import did_you_mean
from easyrec_lite.embeddings import TableSpec
from easyrec_lite.errors import UserError
from easyrec_lite.features import Column, Feature, Ids
from easyrec_lite.features.id_mapping import read_vocabulary
from easyrec_lite.models import Recommender

_BLOCK_ROWS = 1 << 18


def neighbours(
    recommender: Recommender,
    feature_name: str,
    value: object,
    k: int = 10,
    candidates: Mapping[object, int] | None = None,
) -> pd.DataFrame:
    """The nearest rows of a feature's table, by cosine.

    Args:
        recommender: restored.
        feature_name: a feature of ids.
        value: as it stands in the data; the feature encodes it.
        k: how many.
        candidates: values to look among, with how often each was seen; None looks among all rows of the table, also
            those that no training row ever touched.

    Returns:
        Nearest first: `value`, `id` (row of the table), `cosine`, and `count` where candidates say it. Values that
        share a row (hash collisions) stand together in one `value`. Without candidates `value` is the vocabulary's
        word, or the id where ids are the values; for hashed ids, which can't be undone, it is empty.

    Raises:
        UserError: no such feature, or a value that has no row.
    """
    feature, table = feature_table(recommender, feature_name)
    (place,) = encode_values(feature, [value])
    if not 0 <= place < table.rows:
        raise UserError(f"{feature_name}: the value {value!r} has no row in the table: it is missing or unreadable.")
    if k < 1:
        raise UserError(f"k: found {k}; expected at least 1.")
    rows = read_table(recommender, table.name)
    query = _unit(rows[place : place + 1])[0]
    if candidates is None:
        words = _words(feature)
        ids = np.delete(np.arange(min(table.rows, feature.num_ids or 0)), place)
        frame = pd.DataFrame({"value": [words(int(id_)) for id_ in ids], "id": ids})
    else:
        frame = _candidates(feature, candidates, int(place))
    cosines = np.concatenate(
        [_unit(rows[block]) @ query for block in np.array_split(frame["id"], max(1, len(frame) // _BLOCK_ROWS))]
    )
    frame.insert(2, "cosine", np.clip(cosines, -1.0, 1.0))
    nearest = frame.sort_values(["cosine", "id"], ascending=[False, True], kind="stable").head(k)
    return nearest.reset_index(drop=True)


def feature_table(recommender: Recommender, feature_name: str) -> tuple[Feature, TableSpec]:
    """A feature of ids and its deep table.

    Raises:
        UserError: there is none.
    """
    tables = {
        owner: table
        for table in recommender.collection.tables.values()
        for owner in table.owners
        if not (table.name.endswith("_wide") and table.dim == 1)
    }
    if feature_name not in recommender.features or feature_name not in tables:
        hint = did_you_mean(feature_name, tables)
        raise UserError(
            f"feature: found {feature_name!r}; expected a feature with an embedding table: {', '.join(tables)}. {hint}"
        )
    return recommender.features[feature_name], tables[feature_name]


def read_table(recommender: Recommender, name: str) -> np.ndarray:
    """Weights of a table `[rows, dim]`."""
    views = {view.name: view for view in recommender.collection.views(with_slots=False)}
    view = views[f"embeddings/{name}/weights"]
    return view.read(0, view.shape[0])


def encode_values(feature: Feature, values: Sequence[object]) -> np.ndarray:
    """The id of each value `[N]` int64; -1 where it has none.

    Raises:
        UserError: the feature reads several columns, or a value holds several ids.
    """
    if len(feature.inputs) != 1:
        raise UserError(
            f"{feature.name}: found a feature of {len(feature.inputs)} columns; expected one of one column."
        )
    whole = all(isinstance(value, int | np.integer) and not isinstance(value, bool) for value in values)
    numbers = all(isinstance(value, int | float | np.number) and not isinstance(value, bool) for value in values)
    column = (
        tf.constant([int(value) for value in values], tf.int64)  # type: ignore[call-overload]
        if whole
        else tf.constant([float(value) for value in values], tf.float32)  # type: ignore[arg-type]
        if numbers
        else tf.constant([_text(value) for value in values], tf.string)
    )
    encoded = feature.encode({feature.inputs[0]: column})
    if not isinstance(encoded, Ids):
        raise UserError(f"{feature.name}: found a feature of numbers; expected one of ids.")
    if not isinstance(encoded.ids, tf.RaggedTensor):
        return encoded.ids.numpy()
    ids = encoded.ids.merge_dims(1, -1) if encoded.ids.ragged_rank > 1 else encoded.ids
    if int(tf.reduce_max(ids.row_lengths(), axis=0)) > 1:
        raise UserError(f"{feature.name}: found a value with several ids; expected one value, without separators.")
    return ids.to_tensor(-1, [None, 1])[:, 0].numpy()


def seen_values(feature: Feature, columns: Mapping[str, Column]) -> dict[object, int]:
    """The single values of a feature's column in some rows, and how often each stands there."""
    column = columns[feature.inputs[0]]
    several = (feature.multi_valued or feature.is_sequence) and feature.config.separator
    if several and not isinstance(column, tf.RaggedTensor) and column.dtype == tf.string:
        column = tf.strings.split(column, feature.config.separator)
    flat = column.flat_values if isinstance(column, tf.RaggedTensor) else column
    counts = pd.Series(flat.numpy()).value_counts(sort=False)
    return {_plain(value): int(count) for value, count in counts.items() if value not in (b"", "")}


def _candidates(feature: Feature, candidates: Mapping[object, int], query: int) -> pd.DataFrame:
    values = list(candidates)
    found = pd.DataFrame({"value": [str(v) for v in values], "id": encode_values(feature, values)})
    found["count"] = list(candidates.values())
    found = found[(found["id"] >= 0) & (found["id"] != query)]
    grouped = found.groupby("id", sort=False).agg(value=("value", _join), count=("count", "sum")).reset_index()
    return grouped[["value", "id", "count"]]


def _join(values: Iterable[str]) -> str:
    words = list(values)
    return ", ".join(words[:3]) + (f", ... {len(words) - 3} more" if len(words) > 3 else "")


def _words(feature: Feature) -> Callable[[int], str]:
    config = feature.config
    if config.hash_bucket_size:
        return lambda _: ""
    if config.vocab_list:
        return list(config.vocab_list).__getitem__
    if config.vocab_file:
        return read_vocabulary(config.vocab_file).__getitem__
    return str


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of zeros stays one."""
    rows = rows.astype(np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)


def _plain(value: object) -> object:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _text(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    return (str(value).lower() if isinstance(value, bool) else str(value)).encode()
