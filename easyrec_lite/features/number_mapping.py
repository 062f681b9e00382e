"""Numbers to normalised numbers, or to the ids of buckets."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import tensorflow as tf

from easyrec_lite.config import WARNING, Problem
from easyrec_lite.features.base import feature_path
from easyrec_lite.features.formula import Formula, formula_problems
from easyrec_lite.protos import feature_pb2


class NumberMapping(tf.Module):
    """What RawFeature, and SequenceFeature with raw steps, do to a number.

    In this order: `min_val`/`max_val` scale it to (x - min) / (max - min), not clipped; `normalizer_fn` is applied;
    then `boundaries` give len + 1 buckets (-inf, b0), [b0, b1), ..., [bn, inf); else `num_buckets` with a scale gives
    the boundaries k / num_buckets for k = 0 .. num_buckets-1, so num_buckets + 1 buckets, the first of them for values
    below min_val (both as in EasyRec).

    Attributes:
        boundaries: ascending; empty where numbers stay numbers.
        num_ids: number of buckets; None where numbers stay numbers.
    """

    def __init__(self, config: feature_pb2.FeatureConfig) -> None:
        super().__init__(name="number_mapping")
        self._scale = config.max_val > config.min_val
        self._min, self._range = config.min_val, config.max_val - config.min_val
        path = f"{feature_path(config)}.normalizer_fn"
        self._normalizer = Formula(config.normalizer_fn, ("x",), path) if config.normalizer_fn else None
        boundaries = list(config.boundaries)
        if not boundaries and self._scale and config.num_buckets > 1:
            boundaries = [k / config.num_buckets for k in range(config.num_buckets)]
        self.boundaries: tuple[float, ...] = tuple(boundaries)
        self.num_ids: int | None = len(boundaries) + 1 if boundaries else None

    def normalize(self, numbers: tf.Tensor) -> tf.Tensor:
        """Scaled and normalised float32 of the same shape; a result that is not finite gives 0."""
        if self._scale:
            numbers = (numbers - self._min) / self._range
        if self._normalizer is not None:
            numbers = self._normalizer(x=numbers)
        return numbers

    def bucketize(self, numbers: tf.Tensor) -> tf.Tensor:
        """Buckets (int64, same shape) of numbers that `normalize` returned."""
        return tf.cast(tf.raw_ops.Bucketize(input=numbers, boundaries=list(self.boundaries)), tf.int64)


def number_problems(config: feature_pb2.FeatureConfig) -> Iterable[Problem]:
    """What is wrong with the fields that `NumberMapping` reads."""
    path = feature_path(config)
    if any(left >= right for left, right in pairwise(config.boundaries)):
        found = ", ".join(f"{boundary:g}" for boundary in config.boundaries)
        yield Problem(f"{path}.boundaries", found, "strictly ascending numbers", "sort them, each once")
    if config.max_val < config.min_val:
        found = f"{config.max_val:g}, below min_val {config.min_val:g}"
        yield Problem(f"{path}.max_val", found, "a number above min_val")
    if config.num_buckets > 1 and not config.boundaries and config.max_val <= config.min_val:
        yield Problem(
            f"{path}.num_buckets",
            f"{config.num_buckets} without a range",
            "min_val and max_val as well",
            "without them num_buckets does nothing here: the numbers stay numbers",
            severity=WARNING,
        )
    if config.normalizer_fn:
        yield from formula_problems(config.normalizer_fn, ("x",), f"{path}.normalizer_fn")
