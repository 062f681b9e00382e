"""Group tensors: the outputs of the embedding collection put together as the feature groups name them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

import keras
import tensorflow as tf

from easyrec_lite.embeddings import SequenceOutput, TableSpec, table_initializer
from easyrec_lite.layers import (
    MLP,
    SelfAttention,
    SequenceAttention,
    Side,
    Sided,
    TargetAttention,
    TextCNN,
    as_tensor,
    concat,
)
from easyrec_lite.models.layout import AttentionSpec, GroupLayout, Piece
from easyrec_lite.models.sides import repeat_row, repeat_steps
from easyrec_lite.protos import feature_pb2, layer_pb2

_RAW = feature_pb2.FeatureConfig.RawFeature
_DEFAULT_ATTENTION_UNITS = (128, 64, 32, 1)  # as in EasyRec


class History(NamedTuple):
    """A target and a behaviour history, for models that attend themselves, by `pooled`.

    Attributes:
        query: `[B, D]`.
        keys: `[N, D]`, the steps of all rows one after the other.
        row_splits: `[B + 1]`.
    """

    query: tf.Tensor
    keys: tf.Tensor
    row_splits: tf.Tensor


class SidedHistory(NamedTuple):
    """The same with the sides kept apart.

    Attributes:
        query: `[B, D]`.
        keys: `[N, D]`.
        row_splits: `[B + 1]`; `[2]` where the history is one user's.
        side: of the history; USER says that there is one, whatever the number of queries.
    """

    query: Sided
    keys: tf.Tensor
    row_splits: tf.Tensor
    side: Side


GroupInput: TypeAlias = "tf.Tensor | Sided | tuple[History | SidedHistory, ...]"


def pooled(attention: TargetAttention, history: History | SidedHistory, training: bool = False) -> tf.Tensor | Sided:
    """The history pooled for its query `[B, D]`; one user's history is prepared once for all queries."""
    query = history.query
    if isinstance(history, History):
        return attention(history.keys, history.row_splits, query, training=training)
    if history.side is Side.USER and query.side is not Side.USER:
        return Sided(((Side.BOTH, attention.attend(attention.prepare(history.keys), query.tensor())),))
    targets = repeat_row(query.tensor(), tf.shape(history.row_splits)[0] - 1)
    return Sided(((history.side, attention(history.keys, history.row_splits, targets)),))


def mlp_from_config(config: layer_pb2.MLP, name: str) -> MLP:
    """The layer that an `MLP` (EasyRec's DNN) message describes."""
    return MLP(tuple(config.hidden_units), name=name, **mlp_options(config))


def mlp_options(config: layer_pb2.MLP) -> dict[str, Any]:
    """What an `MLP` message says beside its widths, as arguments of the layer."""
    completed = ("use_final_bn", "final_activation", "use_bias", "use_final_bias", "initializer")
    return {
        "dropout_ratio": _dropout_ratios(config),
        "activation": config.activation,
        "use_bn": config.use_bn,
        "use_bn_after_activation": config.use_bn_after_activation,
        **{field: getattr(config, field) for field in completed if config.HasField(field)},
    }


def attention_from_config(config: layer_pb2.MLP, name: str) -> TargetAttention:
    """Target attention whose scoring network is the `MLP` message; a final width of 1 is implied.

    The scores stay linear: final_activation and use_final_bn are not for this network, as `check` says.
    """
    units = tuple(config.hidden_units) or _DEFAULT_ATTENTION_UNITS
    options = mlp_options(config)
    for field in ("final_activation", "use_final_bn"):
        options.pop(field, None)
    return TargetAttention(units if units[-1] == 1 else (*units, 1), **options, name=name)


def self_attention_from_config(config: feature_pb2.SelfAttention, name: str) -> SelfAttention:
    """The encoder that a `SelfAttention` message describes."""
    return SelfAttention(
        config.heads,
        config.layers,
        config.hidden_units or None,
        dropout_ratio=config.dropout_ratio,
        positions=config.positions,
        name=name,
    )


def _dropout_ratios(config: layer_pb2.MLP) -> tuple[float, ...]:
    """One a layer; a single one stands for all."""
    ratios = tuple(config.dropout_ratio)
    return ratios * len(config.hidden_units) if len(ratios) == 1 else ratios


class FeatureGroups(keras.layers.Layer):
    """Makes the group tensors `[B, width]` of all layouts.

    Owns what lies between tables and model: projections of numeric features, sequence combiners, the attention of
    `sequence_features`.
    """

    def __init__(self, layouts: Mapping[str, GroupLayout], features: Mapping[str, feature_pb2.FeatureConfig]) -> None:
        super().__init__(name="groups")
        self.layouts = dict(layouts)
        self._features = dict(features)
        # By name, once each: groups that share a feature share its layer.
        self.parts: dict[str, keras.layers.Layer] = {}
        for layout in layouts.values():
            for piece in layout.pieces:
                name = self._part_name(layout, piece)
                if name and name not in self.parts:
                    self.parts[name] = self._part(piece, name)
        self._text_mlps = {
            name: mlp_from_config(config.sequence_combiner.text_cnn.mlp, f"{name}_text_mlp")
            for name, config in self._features.items()
            if config.sequence_combiner.text_cnn.HasField("mlp") and f"{name}_combiner" in self.parts
        }

    def call(
        self,
        outputs: list[tf.Tensor | SequenceOutput],
        numbers: dict[str, tf.Tensor],
        training: bool = False,
    ) -> dict[str, GroupInput]:
        """Group tensors by name.

        Args:
            outputs: of the collection, in the order of its requests.
            numbers: numeric features `[B, D]` by name.
            training: as in Keras.
        """
        groups: dict[str, GroupInput] = {}
        for layout in self.layouts.values():
            if layout.histories:
                groups[layout.name] = tuple(_history(spec, outputs) for spec in layout.histories)
                continue
            parts = [self._tensor(layout, piece, outputs, numbers, training) for piece in layout.pieces]
            groups[layout.name] = parts[0] if len(parts) == 1 else tf.concat(parts, axis=1)
        return groups

    def by_side(
        self,
        outputs: list[tf.Tensor | SequenceOutput],
        numbers: dict[str, tf.Tensor],
        output_sides: Sequence[Side],
        number_sides: Mapping[str, Side],
        rows: tf.Tensor,
    ) -> dict[str, GroupInput]:
        """The same at inference for one user and N items: `Sided`, in which what is the user's has one row.

        Args:
            outputs: of the collection, in the order of its requests; one row where their side is USER, else N.
            numbers: numeric features by name, likewise.
            output_sides: of `outputs`.
            number_sides: of `numbers`.
            rows: N.
        """
        outputs = [_one_row(x) if side is Side.USER else x for x, side in zip(outputs, output_sides, strict=True)]
        groups: dict[str, GroupInput] = {}
        for layout in self.layouts.values():
            if layout.histories:
                groups[layout.name] = tuple(
                    _history_by_side(spec, outputs, output_sides, rows) for spec in layout.histories
                )
                continue
            parts: list[tf.Tensor | Sided] = []
            for piece in layout.pieces:
                if piece.kind == "self_attention":
                    assert piece.attention is not None
                    steps, side = _steps_by_side(piece.attention, outputs, output_sides, rows)
                    encoded = self.parts[self._part_name(layout, piece)](*steps)
                    if side is Side.USER:
                        encoded.set_shape([1, None])
                    parts.append(Sided(((side, encoded),)))
                elif piece.attention is not None:
                    history = _history_by_side(piece.attention, outputs, output_sides, rows)
                    attention = self.parts[self._part_name(layout, piece)]
                    parts.append(pooled(cast(TargetAttention, attention), history))
                    parts += [history.query] if piece.attention.config.need_key_feature else []
                else:
                    side = number_sides[piece.feature] if piece.request < 0 else output_sides[piece.request]
                    x = self._tensor(layout, piece, outputs, numbers, False)
                    if side is Side.USER:
                        x.set_shape([1, None])  # what ragged values are pooled to does not know its rows
                    parts.append(Sided(((side, x),)))
            groups[layout.name] = concat(parts)
        return groups

    def _tensor(
        self,
        layout: GroupLayout,
        piece: Piece,
        outputs: list[tf.Tensor | SequenceOutput],
        numbers: dict[str, tf.Tensor],
        training: bool,
    ) -> tf.Tensor:
        if piece.kind == "lookup":
            return outputs[piece.request]
        if piece.kind == "numbers":
            return numbers[piece.feature]
        part = self.parts[self._part_name(layout, piece)]
        if piece.kind == "projection":
            return part(numbers[piece.feature])
        if piece.kind == "combiner":
            steps = outputs[piece.request]
            combined = part(steps.values, steps.row_splits)
            mlp = self._text_mlps.get(piece.feature)
            return combined if mlp is None else mlp(combined, training=training)
        assert piece.attention is not None
        if piece.kind == "self_attention":
            return part(*_steps(piece.attention, outputs), training=training)
        history = _history(piece.attention, outputs)
        result = pooled(part, history, training)
        return tf.concat([result, history.query], axis=1) if piece.attention.config.need_key_feature else result

    def _part(self, piece: Piece, name: str) -> keras.layers.Layer:
        if piece.kind == "projection":
            # EasyRec's table with one row per input column, weighted by the value: the same sum as a matrix product.
            initial = _projection_initializer(self._features[piece.feature], piece.width)
            return keras.layers.Dense(piece.width, use_bias=False, kernel_initializer=initial, name=name)
        if piece.kind == "combiner":
            combiner = self._features[piece.feature].sequence_combiner
            if combiner.WhichOneof("combiner") == "text_cnn":
                cnn = combiner.text_cnn
                return TextCNN(
                    tuple(cnn.filter_sizes),
                    tuple(cnn.num_filters),
                    cnn.pad_sequence_length,
                    activation=cnn.activation,
                    name=name,
                )
            return SequenceAttention(name=name)
        assert piece.attention is not None
        if piece.kind == "self_attention":
            return self_attention_from_config(piece.attention.config.self_attention, name)
        return attention_from_config(piece.attention.config.seq_dnn, name)

    @staticmethod
    def _part_name(layout: GroupLayout, piece: Piece) -> str:
        if piece.kind == "projection":
            return f"{piece.feature}_wide_projection" if layout.wide else f"{piece.feature}_projection"
        if piece.kind == "combiner":
            return f"{piece.feature}_combiner"
        return f"{layout.name}_{piece.slots[0].name}_attention" if piece.attention is not None else ""


def _projection_initializer(feature: feature_pb2.FeatureConfig, width: int) -> keras.initializers.Initializer:
    """Initial rows of a projection: those of a table with the feature's `initializer`.

    Raises:
        ConfigError: the initializer does not fit them.
    """
    if not feature.HasField("initializer"):
        return keras.initializers.TruncatedNormal(stddev=width**-0.5)
    name, rows = feature.feature_name, feature.raw_input_dim if feature.feature_type == _RAW else 1
    initial = table_initializer(feature.initializer, width)
    seed = tf.constant([random.randint(1, 10**9), 0], tf.int32)  # as a Keras initializer draws its own
    return keras.initializers.Constant(initial(TableSpec(name, rows, width, (name,), initial), 0, rows, seed))


def without_sides(group: GroupInput, rows: tf.Tensor) -> GroupInput:
    """The group for those who take plain tensors: what is the user's stands N times."""
    if not isinstance(group, tuple):
        return repeat_row(as_tensor(group), rows)
    histories = []
    for history in group:
        steps = SequenceOutput(history.keys, history.row_splits)
        if isinstance(history, SidedHistory) and history.side is Side.USER:
            steps = repeat_steps(steps, rows)
        histories.append(History(repeat_row(as_tensor(history.query), rows), *steps))
    return tuple(histories)


def _history_by_side(
    spec: AttentionSpec, outputs: list[tf.Tensor | SequenceOutput], sides: Sequence[Side], rows: tf.Tensor
) -> SidedHistory:
    """The history of one attention map at inference."""
    query = concat([Sided(((sides[place], outputs[place]),)) for place in spec.keys])
    if spec.key_width < spec.history_width:
        zeros = tf.zeros([1, spec.history_width - spec.key_width])
        query = concat([query, Sided(((Side.USER, zeros),))])
    steps, side = _steps_by_side(spec, outputs, sides, rows)
    return SidedHistory(query, *steps, side)


def _steps_by_side(
    spec: AttentionSpec, outputs: list[tf.Tensor | SequenceOutput], sides: Sequence[Side], rows: tf.Tensor
) -> tuple[SequenceOutput, Side]:
    """The steps of one attention map at inference, and their side: one row's where it is USER, else N rows'."""
    found = {sides[place] for place in spec.history}
    side = found.pop() if len(found) == 1 else Side.BOTH
    steps = {
        place: repeat_steps(outputs[place], rows)
        if side is not Side.USER and sides[place] is Side.USER
        else outputs[place]
        for place in spec.history
    }
    return _steps(spec, steps), side


def _one_row(output: tf.Tensor | SequenceOutput) -> tf.Tensor | SequenceOutput:
    """The user's one row: what is ragged does not know its rows."""
    if isinstance(output, tf.Tensor):
        return output
    return SequenceOutput(output.values, tf.ensure_shape(output.row_splits, [2]))


def _history(spec: AttentionSpec, outputs: list[tf.Tensor | SequenceOutput]) -> History:
    """The history of one attention map; a shorter target is padded with zeros."""
    keys = [outputs[place] for place in spec.keys]
    query = keys[0] if len(keys) == 1 else tf.concat(keys, axis=1)
    if spec.key_width < spec.history_width:
        query = tf.pad(query, [[0, 0], [0, spec.history_width - spec.key_width]])
    return History(query, *_steps(spec, outputs))


def _steps(
    spec: AttentionSpec, outputs: Mapping[int, SequenceOutput] | list[tf.Tensor | SequenceOutput]
) -> SequenceOutput:
    """Keys `[N, D]` with row_splits: the histories of one map side by side."""
    steps = [outputs[place] for place in spec.history]
    if len(steps) > 1:
        message = f"The histories of {spec.name!r} differ in length in some row; the steps of one map go together."
        for other in steps[1:]:
            tf.debugging.assert_equal(steps[0].row_splits, other.row_splits, message=message)
    values = steps[0].values if len(steps) == 1 else tf.concat([step.values for step in steps], axis=1)
    return SequenceOutput(values, steps[0].row_splits)
