"""What every model is: a Keras model over group tensors that names its predictions, losses and metrics."""

from __future__ import annotations

import abc
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import keras
import tensorflow as tf

from easyrec_lite import losses
from easyrec_lite.config import WARNING, Problem
from easyrec_lite.layers import Sided, as_tensor
from easyrec_lite.models.groups import GroupInput
from easyrec_lite.models.layout import GroupLayout
from easyrec_lite.protos import eval_pb2, loss_pb2, model_pb2, pipeline_pb2


class Targets(NamedTuple):
    """What predictions are compared with.

    Attributes:
        labels: `[B]` float32 by label field.
        weight: sample weights `[B]`, or None.
        columns: raw columns `[B]` that losses and metrics ask for: user ids of GAUC, sessions, item ids.
    """

    labels: dict[str, tf.Tensor]
    weight: tf.Tensor | None
    columns: dict[str, tf.Tensor]


@dataclass(frozen=True)
class Task:
    """One label to predict.

    Attributes:
        name: the tower's name, '' in single-task models; suffix of predictions, losses and metrics.
        label: the label field.
        loss_type: CLASSIFICATION, L2_LOSS or SIGMOID_L2_LOSS.
        weight: of the loss in the sum.
        metrics: evaluated on this task.
        use_sample_weight: whether the sample weight column counts here.
        space_label: rows where this label is above 0 weigh `in_weight`, the others `out_weight` ('' = all alike).
    """

    name: str
    label: str
    loss_type: int
    metrics: tuple[eval_pb2.EvalMetrics, ...]
    weight: float = 1.0
    use_sample_weight: bool = True
    space_label: str = ""
    in_weight: float = 1.0
    out_weight: float = 1.0

    def key(self, base: str) -> str:
        """Name of a prediction, loss or metric of this task, as EasyRec has it: `probs`, `probs_ctr`."""
        return f"{base}_{self.name}" if self.name else base

    @property
    def score(self) -> str:
        """The prediction that metrics read."""
        return self.key("y" if self.loss_type in (loss_pb2.L2_LOSS, loss_pb2.SIGMOID_L2_LOSS) else "probs")

    def predictions(self, logits: tf.Tensor | Sided) -> dict[str, tf.Tensor]:
        """Named predictions `[B]` from logits `[B, 1]`."""
        logits = tf.squeeze(as_tensor(logits), axis=1)
        if self.loss_type == loss_pb2.L2_LOSS:
            return {self.key("y"): logits}
        if self.loss_type == loss_pb2.SIGMOID_L2_LOSS:
            return {self.key("y"): tf.sigmoid(logits)}
        return {self.key("logits"): logits, self.key("probs"): tf.sigmoid(logits)}

    @property
    def loss_name(self) -> str:
        """Name of the loss, as EasyRec has it."""
        regression = self.loss_type in (loss_pb2.L2_LOSS, loss_pb2.SIGMOID_L2_LOSS)
        return self.key("l2_loss" if regression else "cross_entropy_loss")

    def row_weight(self, targets: Targets) -> tf.Tensor | None:
        """What each row weighs in the loss, `[B]`; None if all weigh 1."""
        row_weight = targets.weight if self.use_sample_weight else None
        if self.space_label:
            inside = tf.where(targets.labels[self.space_label] > 0, self.in_weight, self.out_weight)
            row_weight = inside if row_weight is None else row_weight * inside
        return row_weight

    def loss(self, predictions: Mapping[str, tf.Tensor], targets: Targets) -> tf.Tensor:
        """The task's loss, scalar."""
        label = targets.labels[self.label]
        if self.loss_type in (loss_pb2.L2_LOSS, loss_pb2.SIGMOID_L2_LOSS):
            rows = losses.l2(label, predictions[self.key("y")])
        else:
            rows = losses.sigmoid_cross_entropy(label, predictions[self.key("logits")])
        return self.weight * losses.weighted_mean(rows, self.row_weight(targets))


class Model(keras.Model, abc.ABC):
    """Base of the zoo.

    A model reads group tensors `[B, width]` and returns named predictions. It sees neither columns nor tables.

    Class attributes:
        params_field: the member of `model_config`'s oneof that holds its parameters.
        loss_types: what `loss_type`, its own or a task tower's, may be.
        ranks: whether `evaluation_predictions` has `rank`, which recall_at_topk reads.
        takes_sides: whether `call` also takes groups as `Sided`, which it hands to layers by `apply` and joins by
            `concat`. Of a model that does not, serving can't compute the user's part once a request.
    """

    params_field: ClassVar[str]
    loss_types: ClassVar[tuple[int, ...]] = (loss_pb2.CLASSIFICATION, loss_pb2.L2_LOSS, loss_pb2.SIGMOID_L2_LOSS)
    ranks: ClassVar[bool] = False
    takes_sides: ClassVar[bool] = False

    @classmethod
    def check(cls, config: pipeline_pb2.EasyRecConfig) -> Iterator[Problem]:
        """What is wrong with the config for this model: groups that are missing, widths that don't fit, ..."""
        yield from ()

    @classmethod
    def wide_dim(cls, config: model_pb2.EasyRecModel) -> int:
        """Width of the tables of WIDE groups."""
        return 1

    def __init__(self, config: pipeline_pb2.EasyRecConfig, layouts: Mapping[str, GroupLayout]) -> None:
        super().__init__(name="model")
        self.layouts = dict(layouts)
        self.model_config = config.model_config
        self.params = getattr(config.model_config, self.params_field)
        self.tasks = self.make_tasks(config)

    def make_tasks(self, config: pipeline_pb2.EasyRecConfig) -> Sequence[Task]:
        """The labels to predict; one task on the first label field unless a model says otherwise."""
        model = config.model_config
        label = model.label_name or (config.data_config.label_fields[0] if config.data_config.label_fields else "")
        return [Task("", label, model.loss_type, tuple(config.eval_config.metrics_set))]

    @abc.abstractmethod
    def call(self, groups: dict[str, GroupInput], training: bool = False) -> dict[str, tf.Tensor]:
        """Predictions by name from group tensors by name."""

    def task_losses(self, predictions: Mapping[str, tf.Tensor], targets: Targets) -> dict[str, tf.Tensor]:
        """Losses by name, scalars; their sum is minimised."""
        return {task.loss_name: task.loss(predictions, targets) for task in self.tasks}

    def training_losses(self, predictions: Mapping[str, tf.Tensor], targets: Targets) -> dict[str, tf.Tensor]:
        """`task_losses` as training minimises them, where that differs from how an evaluation reports them."""
        return self.task_losses(predictions, targets)

    def row_weights(self, targets: Targets) -> dict[str, tf.Tensor | None]:
        """What each row weighs, `[B]`, in the means that `task_losses` are, by name; None or no name if all weigh 1."""
        return {task.loss_name: task.row_weight(targets) for task in self.tasks}

    def mean_losses(self, predictions: Mapping[str, tf.Tensor], targets: Targets) -> tf.Tensor:
        """Each of `task_losses` and the weight of its rows, `[2, losses]`: what MeanLoss joins batches by."""
        rows = tf.cast(tf.shape(next(iter(predictions.values())))[0], tf.float32)
        losses, row_weights = self.task_losses(predictions, targets), self.row_weights(targets)
        weights = [rows if (own := row_weights.get(name)) is None else tf.reduce_sum(own) for name in losses]
        return tf.stack([list(losses.values()), weights])

    @property
    def loss_names(self) -> list[str]:
        """Names of what `task_losses` returns, in its order."""
        return [task.loss_name for task in self.tasks]

    def evaluation_predictions(self, predictions: Mapping[str, tf.Tensor], targets: Targets) -> dict[str, tf.Tensor]:
        """Predictions that metrics may read and serving does not need, added to the others."""
        return dict(predictions)

    @property
    def target_columns(self) -> Sequence[str]:
        """Raw columns that the losses need beside labels and weight."""
        return ()

    @property
    def l2_regularization(self) -> float:
        """Factor of half the squared norm of the dense kernels."""
        return float(self.params.l2_regularization)


def unread_groups(
    config: pipeline_pb2.EasyRecConfig, groups: Collection[str], histories: Collection[str] = (), reader: str = "tower"
) -> Iterator[Problem]:
    """Warnings of `feature_groups` beside `groups` and of `seq_att_groups` beside `histories`, which a model reads."""
    for kind, read in (("feature_groups", groups), ("seq_att_groups", histories)):
        for group in getattr(config.model_config, kind):
            if group.group_name not in read:
                path, found = f"model_config.{kind}[{group.group_name}]", f"a group that no {reader} reads"
                yield Problem(path, found, "", "its features are not used", severity=WARNING)


def require_groups(config: pipeline_pb2.EasyRecConfig, names: Sequence[str], params_field: str) -> Iterator[Problem]:
    """Problems for the groups and the parameters that a model can't do without."""
    present = {group.group_name for group in config.model_config.feature_groups}
    for name in names:
        if name not in present:
            yield Problem(
                "model_config.feature_groups",
                f"groups {sorted(present)}" if present else "no groups",
                f"a group named {name!r}",
                f"{config.model_config.model_class} reads its features from the group {name!r}",
            )
    if config.model_config.WhichOneof("model") != params_field:
        yield Problem(
            "model_config",
            f"parameters in {config.model_config.WhichOneof('model') or 'no block'}",
            f"a block {params_field} {{ ... }}",
            f"that is where {config.model_config.model_class} has its parameters",
        )
