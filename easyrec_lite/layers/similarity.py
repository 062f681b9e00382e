"""Similarity of user and item vectors (DSSM, Huang et al., 2013)."""

from __future__ import annotations

from typing import Any, Literal, get_args

import keras
import tensorflow as tf

SimilarityKind = Literal["cosine", "inner_product"]


@keras.saving.register_keras_serializable("easyrec_lite")
class Similarity(keras.layers.Layer):
    """(|w| * s + b) / temperature with s = cosine or inner product.

    Args:
        kind: "cosine" or "inner_product".
        scale: learn w (from 1) and b (from 0), EasyRec's scale_simi; without it they stay 1 and 0.
        temperature: divides the result.

    Raises:
        ValueError: the kind is unknown or the temperature not above 0.
    """

    def __init__(
        self, kind: SimilarityKind = "cosine", scale: bool = False, temperature: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if kind not in get_args(SimilarityKind):
            raise ValueError(f"kind must be one of {get_args(SimilarityKind)}. Received: {kind!r}")
        if temperature <= 0.0:
            raise ValueError(f"temperature must be above 0. Received: {temperature}")
        self.kind = kind
        self.scale = scale
        self.temperature = temperature

    def build(self, user_shape: tuple[int | None, ...], item_shape: tuple[int | None, ...]) -> None:
        """Creates sim_w and sim_b, scalars, if they are learned."""
        if self.scale:
            self.sim_w = self.add_weight(name="sim_w", shape=(), initializer="ones")
            self.sim_b = self.add_weight(name="sim_b", shape=(), initializer="zeros")

    def normalize(self, x: tf.Tensor) -> tf.Tensor:
        """[B, D] -> the vectors to export: of length 1 for cosine, unchanged for inner product."""
        return tf.nn.l2_normalize(x, axis=-1, epsilon=1e-12) if self.kind == "cosine" else x

    def call(self, user: tf.Tensor, item: tf.Tensor, pairwise: bool = False) -> tf.Tensor:
        """User [B, D] (or [1, D]) and item [M, D] -> [B], row by row (M = B); pairwise: [B, M], all pairs."""
        # Factors go onto the user vectors: a pass over [B, D] is cheaper than one over [B, M].
        user = self.normalize(user) * (tf.abs(self.sim_w) if self.scale else 1.0) / self.temperature
        item = self.normalize(item)
        y = tf.matmul(user, item, transpose_b=True) if pairwise else tf.reduce_sum(user * item, axis=-1)
        return y + self.sim_b / self.temperature if self.scale else y

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "kind": self.kind, "scale": self.scale, "temperature": self.temperature}
