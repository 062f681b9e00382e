"""What a feature is, and what it hands on."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping
from typing import ClassVar, NamedTuple, TypeAlias

import tensorflow as tf

from easyrec_lite.config import Problem
from easyrec_lite.protos import feature_pb2

Column: TypeAlias = "tf.Tensor | tf.RaggedTensor"
Columns: TypeAlias = Mapping[str, Column]
# Declared types (DatasetConfig.FieldType) of the columns; empty where they are left to be read from the files.
ColumnTypes: TypeAlias = Mapping[str, int]


class Ids(NamedTuple):
    """Rows of an embedding table.

    Attributes:
        ids: int64. `[B]`; or ragged `[B, None]` for several values a row or a sequence; or ragged `[B, None, None]`
            for a sequence whose steps have several values. A negative id (-1) has no row: it stands for the zero
            vector. It marks a missing value in `[B]`, and in a sequence a step that can't be read.
        weights: float32 of the same structure, or None where every weight is 1.
    """

    ids: tf.Tensor | tf.RaggedTensor
    weights: tf.Tensor | tf.RaggedTensor | None = None


class Numbers(NamedTuple):
    """Numeric values.

    Attributes:
        values: float32 `[B, D]`; or ragged `[B, None, D]` for a sequence.
    """

    values: tf.Tensor | tf.RaggedTensor


Encoded: TypeAlias = Ids | Numbers


class Feature(tf.Module, abc.ABC):
    """Turns raw columns into ids or numbers.

    A feature is a pure function of its columns, written in TF ops that run alike eagerly, in a `tf.data` map and in a
    SavedModel. Its only resources are lookup tables of vocabularies; as a `tf.Module` it brings them into any module
    that holds it.

    Attributes:
        config: the feature's part of the config.
        inputs: names of the raw columns, in the order of the config.
        is_sequence: whether the values of a row are ordered steps.
        multi_valued: whether a row has any number of ids, without order: `Ids.ids` is ragged.
        num_ids: number of ids; None where the output is `Numbers`.
        weighted: whether `Ids.weights` is set.
        width: D of `Numbers`; 0 where the output is `Ids`.
    """

    # Fewest and most input columns; None = no limit.
    inputs_allowed: ClassVar[tuple[int, int | None]] = (1, 1)

    is_sequence: bool = False
    multi_valued: bool = False
    num_ids: int | None = None
    weighted: bool = False
    width: int = 0

    def __init__(self, config: feature_pb2.FeatureConfig) -> None:
        super().__init__(name="feature")  # tf.Module takes identifiers only; ours is the property below
        self.config = config
        self.inputs: tuple[str, ...] = tuple(config.input_names)

    @property
    def name(self) -> str:
        """The effective name: `feature_name`, else the first input column."""
        return feature_name(self.config)

    @property
    def path(self) -> str:
        """Where the feature stands in the config."""
        return feature_path(self.config)

    @property
    def projected(self) -> bool:
        """Whether numbers `[.., D]` are to be multiplied by a learned matrix `[D, embedding_dim]`."""
        return self.num_ids is None and self.config.embedding_dim > 0

    @abc.abstractmethod
    def encode(self, columns: Columns) -> Encoded:
        """Encodes a batch.

        Args:
            columns: the raw columns by name, at least `inputs`; string, int64 or float32, `[B]` or ragged.
        """

    def count_unknown(self, columns: Columns) -> tf.Tensor:
        """Number of values in a batch that are given but mean nothing here, as int64 scalar.

        That is: outside the vocabulary, outside `num_buckets`, or not readable as a number. Not part of training;
        `check` and monitors ask for it.
        """
        return tf.zeros([], tf.int64)

    @classmethod
    def problems(cls, config: feature_pb2.FeatureConfig, types: ColumnTypes) -> Iterable[Problem]:
        """What is wrong with a feature's config, beyond what the schema says.

        Args:
            config: the feature.
            types: declared types of the columns.
        """
        fewest, most = cls.inputs_allowed
        count = len(config.input_names)
        if count < fewest or (most is not None and count > most):
            wanted = str(fewest) if fewest == most else f"at least {fewest}" if most is None else f"{fewest} to {most}"
            found = ", ".join(config.input_names) or "none"
            yield Problem(f"{feature_path(config)}.input_names", found, f"{wanted} column name(s)")


def feature_name(config: feature_pb2.FeatureConfig) -> str:
    """The effective name of a feature: `feature_name`, else the first input column."""
    return config.feature_name or (config.input_names[0] if config.input_names else "")


def feature_path(config: feature_pb2.FeatureConfig) -> str:
    """The path of a feature in the canonical config, as errors name it."""
    return f"features[{feature_name(config)}]"
