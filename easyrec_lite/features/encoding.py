"""Features encoded together."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping

import tensorflow as tf

from easyrec_lite.features.base import Columns, Encoded, Feature, Ids
from easyrec_lite.features.id_feature import IdFeature


def encode_features(
    features: Mapping[str, Feature], columns: Columns, together: Iterable[Collection[str]] = ()
) -> dict[str, Encoded]:
    """`Feature.encode` of each feature, by name.

    Args:
        features: by name.
        columns: raw columns by name.
        together: sets of features that depend on each other's columns anyway. Those among them that map their cells
            alike are encoded as one matrix: in a small batch operations cost more than what they compute.
    """
    encoded: dict[str, Encoded] = {}
    for names in together:
        alike: dict[Hashable, list[IdFeature]] = {}
        for name in names:
            feature = features.get(name)
            if isinstance(feature, IdFeature) and name not in encoded and feature.mapping.kind is not None:
                column = columns[feature.inputs[0]]
                if isinstance(column, tf.Tensor):
                    key = (feature.mapping.kind, column.dtype, column.shape[0])
                    alike.setdefault(key, []).append(feature)
        for several in alike.values():
            if len(several) > 1:
                encoded |= _encode_matrix(several, columns)
    return {name: encoded[name] if name in encoded else feature.encode(columns) for name, feature in features.items()}


def _encode_matrix(features: list[IdFeature], columns: Columns) -> dict[str, Encoded]:
    mappings = [feature.mapping for feature in features]
    cells = tf.stack([columns[feature.inputs[0]] for feature in features])
    ids = tf.unstack(mappings[0].joined(mappings).cells(cells), len(features))
    return {feature.name: Ids(row) for feature, row in zip(features, ids, strict=True)}
