"""The whole of a model, from raw columns to predictions: what training, evaluation and serving share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from easyrec_lite import losses
from easyrec_lite.embeddings import Concat, EmbeddingCollection, Plan, Request, StoredRows, build_row_optimizer
from easyrec_lite.features import Columns, Encoded, Ids, Labels, Numbers, build_features, encode_features
from easyrec_lite.layers import Side
from easyrec_lite.models.base import Targets
from easyrec_lite.models.groups import FeatureGroups, without_sides
from easyrec_lite.models.layer_names import fresh_layer_names
from easyrec_lite.models.layout import LayoutBuilder
from easyrec_lite.models.metrics import metric_columns
from easyrec_lite.models.registry import build_model, model_class
from easyrec_lite.models.sides import feature_side, repeated, request_rows, user_columns
from easyrec_lite.protos import loss_pb2, pipeline_pb2


class Batch(NamedTuple):
    """A batch ready for a step.

    Attributes:
        plan: rows of the tables.
        numbers: numeric features `[B, D]` float32 by name.
        targets: labels, weight and raw columns; empty in serving.
    """

    plan: Plan
    numbers: dict[str, tf.Tensor]
    targets: Targets


class Recommender(tf.Module):
    """Features, tables and model of one config.

    Args:
        config: checked and complete.
        training: rows of the tables carry optimizer state.
        tables: False leaves the tables without rows, for those who only want to look at the graph.

    Attributes:
        features: the features that some group uses, by name.
        collection: the tables.
        groups: makes group tensors.
        model: the Keras model.
        user_columns: raw columns that are the same for all items of one request.
        sides: what of a request each feature describes.
        binary_labels: labels that a cross entropy is trained on, which takes 0 to 1.
    """

    def __init__(self, config: pipeline_pb2.EasyRecConfig, training: bool = True, tables: bool = True) -> None:
        super().__init__(name="recommender")
        self.config = config
        seed = config.train_config.seed
        keras.utils.set_random_seed(seed & 0x7FFFFFFF)
        every_feature = build_features(config)
        self.user_columns = user_columns(config)
        self.sides = {name: feature_side(feature, self.user_columns) for name, feature in every_feature.items()}
        wide_dim = model_class(config).wide_dim(config.model_config)
        builder = LayoutBuilder(config, every_feature, wide_dim, None if training else self.sides)
        self.features = {name: every_feature[name] for name in builder.used_features}
        self.layouts = builder.layouts
        self._together = [request.features for request in builder.requests if isinstance(request, Concat)]
        row_optimizer, dense_decay = build_row_optimizer(config.train_config.optimizer_config[0])
        self.row_slots = row_optimizer.slots  # state kept beside each weight in training
        optimizer = row_optimizer if training else None
        self.collection = EmbeddingCollection(
            list(builder.tables.values()), builder.requests, optimizer, seed, dense_decay, tables
        )
        with fresh_layer_names():
            self.groups = FeatureGroups(builder.layouts, {name: f.config for name, f in self.features.items()})
            self.model = build_model(config, builder.layouts)
        self.labels = Labels(config.data_config)
        self.binary_labels = {task.label for task in self.model.tasks if task.loss_type == loss_pb2.CLASSIFICATION}
        self._embedding_l2 = config.model_config.embedding_regularization

    # ---- columns

    @property
    def feature_columns(self) -> list[str]:
        """Raw columns that the features read, in the order of the features."""
        return list(dict.fromkeys(name for feature in self.features.values() for name in feature.inputs))

    @property
    def target_columns(self) -> list[str]:
        """Raw columns that losses and metrics read as they are."""
        return list(dict.fromkeys([*self.model.target_columns, *metric_columns(self.config, self.model.tasks)]))

    @property
    def columns(self) -> list[str]:
        """Every raw column that training reads."""
        return list(dict.fromkeys([*self.feature_columns, *self.labels.columns, *self.target_columns]))

    # ---- the way of a batch

    def encode_features(self, columns: Columns) -> dict[str, Encoded]:
        """Ids and numbers by feature."""
        return encode_features(self.features, columns, self._together)

    def encode(self, columns: Columns, targets: bool = True, distinct: bool = True) -> Batch:
        """Everything that can be done before the step, in pure TF ops.

        Args:
            columns: raw columns by name.
            targets: whether labels and the like are there and wanted.
            distinct: see EmbeddingCollection.plan.
        """
        return self.assemble(self.encode_features(columns), columns, targets, distinct)

    def assemble(
        self, encoded: Mapping[str, Encoded], columns: Columns, targets: bool = True, distinct: bool = True
    ) -> Batch:
        """The rest of `encode`, for those who want to see what the features say."""
        ids = {name: value for name, value in encoded.items() if isinstance(value, Ids)}
        numbers = {name: value.values for name, value in encoded.items() if isinstance(value, Numbers)}
        plan = self.collection.plan(ids, distinct)
        if not targets:
            return Batch(plan, numbers, Targets({}, None, {}))
        labels, weight = self.labels(columns)
        labels = {
            name: _probabilities(name, label) if name in self.binary_labels else label for name, label in labels.items()
        }
        return Batch(plan, numbers, Targets(labels, weight, {name: columns[name] for name in self.target_columns}))

    def forward(
        self, weights: Mapping[str, tf.Tensor | tf.Variable | StoredRows], batch: Batch, training: bool = False
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Predictions by name, and the regularisation of the rows looked up (scalar).

        Args:
            weights: of the collection: the distinct rows of the batch.
            batch: as from `encode`.
            training: as in Keras.
        """
        outputs = self.collection.outputs(weights, batch.plan)
        groups = self.groups(outputs, batch.numbers, training=training)
        predictions = self.model(groups, training=training)
        if not training or not self._embedding_l2:
            return predictions, tf.zeros([])
        looked_up = [output if isinstance(output, tf.Tensor) else output.values for output in outputs]
        return predictions, losses.l2_penalty(looked_up, self._embedding_l2)

    def predict(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Predictions of a batch whose plan has distinct rows, outside of training."""
        weights = self.collection.weights(self.collection.gather(batch.plan))
        return self.forward(weights, batch)[0]

    def predict_request(
        self, weights: Mapping[str, tf.Tensor | tf.Variable | StoredRows], columns: Columns
    ) -> dict[str, tf.Tensor]:
        """Predictions `[N]` of one user and N items, what depends on the user alone computed once and left `[1]`.

        Equal to `predict` on columns in which the user's one row stands N times, up to the order of sums.

        Args:
            weights: of the collection, which must have been built for inference: its variables.
            columns: raw columns by name; those of `user_columns` have one row, the others N.
        """
        rows = request_rows(columns, self.user_columns)
        whole = repeated(columns, self.user_columns, rows)  # for what reads both sides, such as crosses
        crosses = {name: feature for name, feature in self.features.items() if self.sides[name] is Side.BOTH}
        others = {name: feature for name, feature in self.features.items() if name not in crosses}
        encoded = encode_features(others, columns, self._together) | encode_features(crosses, whole)
        batch = self.assemble(encoded, columns, targets=False, distinct=False)
        outputs = self.collection.outputs(weights, batch.plan)
        output_sides = [self.sides[_features_of(request)[0]] for request in self.collection.requests]
        groups = self.groups.by_side(outputs, batch.numbers, output_sides, self.sides, rows)
        if self.model.takes_sides:
            return self.model.call(groups, training=False)  # Keras's own way in takes plain tensors only
        return self.model({name: without_sides(group, rows) for name, group in groups.items()})

    def losses(
        self, predictions: Mapping[str, tf.Tensor], targets: Targets, embedding_l2: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Losses by name, scalars, with `regularization_loss` where the config asks for any."""
        result = self.model.training_losses(predictions, targets)
        if "regularization_loss" in self.loss_names:
            kernels = self.kernels if self.model.l2_regularization else []
            result["regularization_loss"] = embedding_l2 + losses.l2_penalty(kernels, self.model.l2_regularization)
        return result

    # ---- variables

    def build(self) -> None:
        """Creates the dense variables, by running one row of empty cells: that is faster than tracing a graph."""
        if self.model.built and self.groups.built:
            return
        batch = self.encode({name: tf.constant([""]) for name in self.feature_columns}, targets=False)
        self.forward(self.collection.zero_weights(batch.plan), batch)
        names = [variable.path for variable in self.dense_variables]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"Two variables have one name: {twice}. Give the layers of the model different names.")

    @property
    def loss_names(self) -> list[str]:
        """Names of what `losses` returns, in its order."""
        regularized = self._embedding_l2 or (self.model.l2_regularization and self.kernels)
        return [*self.model.loss_names, *(["regularization_loss"] if regularized else [])]

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """Dense trainable variables, in a fixed order."""
        return [*self.groups.trainable_variables, *self.model.trainable_variables]

    @property
    def dense_variables(self) -> list[keras.Variable]:
        """Every dense variable: weights, moving averages, states of random generators."""
        return [*self.groups.variables, *self.model.variables]

    @property
    def kernels(self) -> list[keras.Variable]:
        """Kernels under `l2_regularization`."""
        return [variable for variable in self.trainable_variables if variable.path.endswith("/kernel")]

    def parameter_counts(self) -> tuple[int, int]:
        """Numbers of parameters: in tables, in dense layers."""
        tables = sum(table.rows * table.dim for table in self.collection.tables.values())
        return tables, sum(int(np.prod(variable.shape)) for variable in self.trainable_variables)


def _features_of(request: Request) -> tuple[str, ...]:
    return request.features if isinstance(request, Concat) else (request.feature,)


def _probabilities(name: str, label: tf.Tensor) -> tf.Tensor:
    """The label, once it is seen to be in [0, 1]: of others a cross entropy trains to infinity in silence."""
    fits = tf.reduce_all((label >= 0.0) & (label <= 1.0))
    message = (
        f"Label column {name}: found a value outside of 0 .. 1; expected 0 or 1 for loss_type CLASSIFICATION. "
        "Mend the rows, or choose another loss_type, such as L2_LOSS."
    )
    with tf.control_dependencies([tf.debugging.Assert(fits, [message])]):
        return tf.identity(label)
