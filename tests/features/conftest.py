"""Ways to build a feature from text and to run it where it must work the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import tensorflow as tf
from google.protobuf import text_format

from easyrec_lite.features import Encoded, Feature, build_features
from easyrec_lite.protos import pipeline_pb2

Build = Callable[[str], Feature]
Run = Callable[[Feature, Mapping[str, Any]], Any]


@pytest.fixture
def build() -> Build:
    """One feature from the text of its config."""

    def feature(text: str) -> Feature:
        config = text_format.Parse(f"features {{ {text} }}", pipeline_pb2.EasyRecConfig())
        return next(iter(build_features(config).values()))

    return feature


def columns_of(columns: Mapping[str, Any]) -> dict[str, tf.Tensor | tf.RaggedTensor]:
    """Lists as columns: string, int64 or float32; nested lists are ragged."""
    result = {}
    for name, values in columns.items():
        if not isinstance(values, tf.Tensor | tf.RaggedTensor):
            nested = any(isinstance(value, list) for value in values)
            values = tf.ragged.constant(values) if nested else tf.constant(values)
        result[name] = tf.cast(values, tf.int64) if values.dtype == tf.int32 else values
    return result


def plain(encoded: Encoded) -> Any:
    """Lists: of ids, of (ids, weights), or of numbers."""
    parts = [
        part.to_list() if isinstance(part, tf.RaggedTensor) else part.numpy().tolist()
        for part in encoded
        if part is not None
    ]
    return tuple(parts) if len(parts) > 1 else parts[0]


@pytest.fixture
def run() -> Run:
    """Encodes eagerly and in a tf.data map, and requires the same."""

    def encode(feature: Feature, columns: Mapping[str, Any]) -> Any:
        tensors = columns_of(columns)
        eager = plain(feature.encode(tensors))
        batches = tf.data.Dataset.from_tensors(tensors).map(feature.encode)
        assert [plain(batch) for batch in batches] == [eager]
        return eager

    return encode
