"""DSSM: a user tower and an item tower whose similarity is the score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import tensorflow as tf

from easyrec_lite import losses
from easyrec_lite.config import Problem, no_effect
from easyrec_lite.layers import SamplingFrequency, Similarity, apply, as_tensor
from easyrec_lite.models.base import Model, Targets, require_groups, unread_groups
from easyrec_lite.models.groups import GroupInput, mlp_from_config
from easyrec_lite.models.layout import GroupLayout
from easyrec_lite.models.registry import register
from easyrec_lite.protos import layer_pb2, loss_pb2, pipeline_pb2

_SOFTMAX_LOSS = "softmax_cross_entropy_loss"


@register("DSSM")
class DSSM(Model):
    """Two towers (Huang et al., 2013).

    With `loss_type: SOFTMAX_CROSS_ENTROPY` each clicked row's item competes with the items of the whole batch. Rows
    whose label is 0 lend their item as a negative and are no positives (EasyRec takes every row as one); without a
    label field every row is a positive. With CLASSIFICATION or L2_LOSS the score of each row's own pair is fitted to
    its label. The last layer of a tower is linear.
    """

    params_field: ClassVar[str] = "dssm"
    takes_sides: ClassVar[bool] = True
    loss_types: ClassVar[tuple[int, ...]] = (*Model.loss_types, loss_pb2.SOFTMAX_CROSS_ENTROPY)
    ranks: ClassVar[bool] = True

    @classmethod
    def check(cls, config: pipeline_pb2.EasyRecConfig) -> Iterator[Problem]:
        """Groups user and item; towers that end in vectors of one length."""
        yield from require_groups(config, ("user", "item"), cls.params_field)
        yield from unread_groups(config, ("user", "item"))
        params = config.model_config.dssm
        ends = [list(tower.dnn.hidden_units)[-1:] for tower in (params.user_tower, params.item_tower)]
        if ends[0] != ends[1]:
            yield Problem(
                "model_config.dssm.item_tower.dnn.hidden_units",
                f"last widths {ends[0]} (user) and {ends[1]} (item)",
                "one last width for both towers",
            )
        if params.logq_correction and not params.item_id:
            path = "model_config.dssm.logq_correction"
            yield Problem(path, "true without item_id", "item_id: the column by which items are counted")
        elif params.logq_correction and config.model_config.loss_type != loss_pb2.SOFTMAX_CROSS_ENTROPY:
            path = "model_config.dssm.logq_correction"
            yield no_effect(path, "logq_correction", "loss_type: SOFTMAX_CROSS_ENTROPY, whose negatives it corrects")
        if params.simi_func == layer_pb2.INNER_PRODUCT and params.temperature != 1:
            yield no_effect("model_config.dssm.temperature", "temperature with INNER_PRODUCT", "simi_func: COSINE")
        if params.simi_func == layer_pb2.EUCLID:
            yield Problem("model_config.dssm.simi_func", "EUCLID", "COSINE or INNER_PRODUCT")

    def __init__(self, config: pipeline_pb2.EasyRecConfig, layouts: Mapping[str, GroupLayout]) -> None:
        super().__init__(config, layouts)
        self.listwise = self.model_config.loss_type == loss_pb2.SOFTMAX_CROSS_ENTROPY
        self.user_tower = mlp_from_config(self.params.user_tower.dnn, "user_tower")
        self.item_tower = mlp_from_config(self.params.item_tower.dnn, "item_tower")
        cosine = self.params.simi_func == layer_pb2.COSINE
        self.similarity = Similarity(
            "cosine" if cosine else "inner_product",
            temperature=self.params.temperature if cosine else 1.0,
            scale=self.params.scale_simi,
            name="similarity",
        )
        self.frequency: SamplingFrequency | None = None
        if self.params.logq_correction and self.listwise:
            self.frequency = SamplingFrequency(name="frequency")
            self.frequency.build((None,))  # only training calls it

    def call(self, groups: dict[str, GroupInput], training: bool = False) -> dict[str, tf.Tensor]:
        """Predictions `[B]`; `similarity` is `[B, B]` where the loss compares a row with the batch's items."""
        user = as_tensor(apply(self.user_tower, groups["user"], training=training))
        item = as_tensor(apply(self.item_tower, groups["item"], training=training))
        result = {"user_tower_emb": self.similarity.normalize(user), "item_tower_emb": self.similarity.normalize(item)}
        if self.listwise and training:
            result["similarity"] = self.similarity(user, item, pairwise=True)
        scores = self.similarity(user, item)
        if not self.listwise:
            result.update(self.tasks[0].predictions(scores[:, None]))
            return result
        return {**result, "logits": scores, "probs": tf.sigmoid(scores)}

    def task_losses(self, predictions: Mapping[str, tf.Tensor], targets: Targets) -> dict[str, tf.Tensor]:
        """See Model.task_losses."""
        if not self.listwise:
            return super().task_losses(predictions, targets)
        return self._softmax_loss(predictions["similarity"], targets)

    def training_losses(self, predictions: Mapping[str, tf.Tensor], targets: Targets) -> dict[str, tf.Tensor]:
        """With `logq_correction` the logits are corrected by how often each item comes up; see SamplingFrequency."""
        if self.frequency is None:
            return self.task_losses(predictions, targets)
        log_q = self.frequency(targets.columns[self.params.item_id])
        return self._softmax_loss(predictions["similarity"] - log_q, targets)

    def _softmax_loss(self, similarity: tf.Tensor, targets: Targets) -> dict[str, tf.Tensor]:
        item_ids = targets.columns[self.params.item_id] if self.params.item_id else None
        rows = losses.in_batch_softmax(similarity, item_ids)
        return {_SOFTMAX_LOSS: losses.weighted_mean(rows, self._positives(targets))}

    def row_weights(self, targets: Targets) -> dict[str, tf.Tensor | None]:
        """See Model.row_weights."""
        return {_SOFTMAX_LOSS: self._positives(targets)} if self.listwise else super().row_weights(targets)

    @property
    def loss_names(self) -> list[str]:
        """See Model.loss_names."""
        return [_SOFTMAX_LOSS] if self.listwise else super().loss_names

    def evaluation_predictions(self, predictions: Mapping[str, tf.Tensor], targets: Targets) -> dict[str, tf.Tensor]:
        """Adds `similarity` `[B, B]` and `rank` `[B]`: how many items of the batch suit the user better than his own.

        Ties count as better, so that a model which finds all items alike has no recall; the same item in another row
        does not, which only `item_id` can tell. Without it a tie is taken for the same item. The rank is NaN where a
        similarity in the row is.
        """
        matrix = self.similarity(predictions["user_tower_emb"], predictions["item_tower_emb"], pairwise=True)
        own = tf.linalg.diag_part(matrix)[:, None]
        if self.params.item_id:
            ids = targets.columns[self.params.item_id]
            better = (matrix >= own) & (ids[:, None] != ids[None, :])
        else:
            better = matrix > own
        rank = tf.math.count_nonzero(better, axis=1, dtype=tf.float32)
        unknown = tf.reduce_any(tf.math.is_nan(matrix), axis=1)  # NaN is never better, so its rank would be the best
        return {**predictions, "similarity": matrix, "rank": tf.where(unknown, float("nan"), rank)}

    def _positives(self, targets: Targets) -> tf.Tensor | None:
        label = self.tasks[0].label
        if not label:
            return targets.weight
        clicked = tf.cast(targets.labels[label] > 0, tf.float32)
        return clicked if targets.weight is None else clicked * targets.weight

    @property
    def target_columns(self) -> Sequence[str]:
        """The item id, by which a positive's own item is not taken for its negative."""
        return (self.params.item_id,) if self.params.item_id else ()
