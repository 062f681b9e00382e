"""The stack of dense layers that every model is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from easyrec_lite.layers.activations import Dice
from easyrec_lite.layers.activations import activation as make_activation
from easyrec_lite.layers.batch_norm import BatchNorm
from easyrec_lite.layers.dense import Dense
from easyrec_lite.layers.dropout import Dropout
from easyrec_lite.layers.sided import Sided, apply


@keras.saving.register_keras_serializable("easyrec_lite")
class MLP(keras.layers.Layer):
    """Units of dense -> batch norm -> activation -> dropout: [B, D] -> [B, hidden_units[-1]].

    The order is EasyRec's. Variables: `dense_<i>/kernel`, `dense_<i>/bias`, `bn_<i>/...`, `activation_<i>/...`,
    `dropout_<i>/...`, i from 0.

    Args:
        hidden_units: widths; none at all makes the layer the identity.
        dropout_ratio: by unit; missing ones are 0.
        activation: name (`activation_names()` lists them).
        use_bn: batch norm in every unit.
        use_final_bn: batch norm in the last unit; None: as `use_bn`.
        final_activation: of the last unit; None: as `activation`. "linear" for none.
        use_bias: biases in every unit.
        use_final_bias: bias in the last unit; None: as `use_bias`.
        use_bn_after_activation: dense -> activation -> batch norm -> dropout.
        initializer: of the kernels; a Keras initializer or its name.

    Raises:
        ValueError: a width or a ratio is out of range, there are more ratios than widths, or a name is unknown.

    Example:
        >>> mlp = MLP([4, 2], name="deep")
        >>> mlp(tf.ones([3, 5])).shape
        TensorShape([3, 2])
        >>> [kernel.path for kernel in mlp.kernels]
        ['deep/dense_0/kernel', 'deep/dense_1/kernel']
    """

    def __init__(
        self,
        hidden_units: Sequence[int],
        dropout_ratio: Sequence[float] = (),
        activation: str = "relu",
        use_bn: bool = True,
        use_final_bn: bool | None = None,
        final_activation: str | None = None,
        use_bias: bool = True,
        use_final_bias: bool | None = None,
        use_bn_after_activation: bool = False,
        initializer: str | keras.initializers.Initializer = "he_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.hidden_units = tuple(int(units) for units in hidden_units)
        self.dropout_ratio = tuple(float(ratio) for ratio in dropout_ratio)
        if any(units < 1 for units in self.hidden_units):
            raise ValueError(f"hidden_units must be positive. Received: {list(hidden_units)}")
        if len(self.dropout_ratio) > len(self.hidden_units):
            raise ValueError(
                f"dropout_ratio has more entries than hidden_units. "
                f"Received: {list(dropout_ratio)} for {list(hidden_units)}"
            )
        self.activation = activation
        self.use_bn = use_bn
        self.use_final_bn = use_final_bn
        self.final_activation = final_activation
        self.use_bias = use_bias
        self.use_final_bias = use_final_bias
        self.use_bn_after_activation = use_bn_after_activation
        self.initializer = keras.initializers.get(initializer)

        self.denses: list[Dense] = []
        self._after: list[list[Any]] = []
        for i, units in enumerate(self.hidden_units):
            final = i == len(self.hidden_units) - 1
            bias = use_final_bias if final and use_final_bias is not None else use_bias
            bn = use_final_bn if final and use_final_bn is not None else use_bn
            name = final_activation if final and final_activation is not None else activation
            # An initializer without a seed of its own draws the same numbers twice when shared: one a layer.
            kernel_initializer = self.initializer.clone()
            self.denses.append(Dense(units, use_bias=bias, kernel_initializer=kernel_initializer, name=f"dense_{i}"))
            act = make_activation(name, f"activation_{i}")
            norm = [BatchNorm(name=f"bn_{i}")] if bn else []
            after = [act, *norm] if use_bn_after_activation else [*norm, act]
            if i < len(self.dropout_ratio) and self.dropout_ratio[i] > 0:
                after.append(Dropout(self.dropout_ratio[i], name=f"dropout_{i}"))
            self._after.append(after)

    @property
    def kernels(self) -> list[keras.Variable]:
        """The dense kernels, for L2 regularisation; empty until built."""
        return [dense.kernel for dense in self.denses if dense.built]

    @property
    def normed(self) -> list[tuple[Dense, BatchNorm]]:
        """The dense layers whose outputs are normalised as they are, each with its norm."""
        pairs = zip(self.denses, self._after, strict=True)
        return [(dense, after[0]) for dense, after in pairs if isinstance(after[0], BatchNorm)]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the variables of all units."""
        shape = tuple(input_shape)
        for dense, after in zip(self.denses, self._after, strict=True):
            dense.build(shape)
            shape = (*shape[:-1], dense.units)
            for layer in after:
                if isinstance(layer, keras.layers.Layer):
                    layer.build(shape)

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """[B, D] -> [B, hidden_units[-1]]."""
        return self.call_from_first(self.denses[0](x), training) if self.denses else x

    def call_from_first(self, z: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """The rest of the stack, from the first dense layer's output z [B, hidden_units[0]].

        For callers that have a cheaper way to that product (split by sides, or algebraically as in DIN).
        """
        for i, after in enumerate(self._after):
            z = z if i == 0 else self.denses[i](z)
            for layer in after:
                z = layer(z, training=training) if isinstance(layer, BatchNorm | Dice | Dropout) else layer(z)
        return z

    def call_sided(self, x: Sided, training: bool | None = None) -> tf.Tensor | Sided:
        """Sided [B, D] -> [B, hidden_units[-1]], the user's share of the first product computed once."""
        return self.call_from_first(apply(self.denses[0], x), training) if self.denses else x

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's shape, with the last width."""
        return (*input_shape[:-1], self.hidden_units[-1]) if self.hidden_units else tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        own = {
            "hidden_units": self.hidden_units,
            "dropout_ratio": self.dropout_ratio,
            "activation": self.activation,
            "use_bn": self.use_bn,
            "use_final_bn": self.use_final_bn,
            "final_activation": self.final_activation,
            "use_bias": self.use_bias,
            "use_final_bias": self.use_final_bias,
            "use_bn_after_activation": self.use_bn_after_activation,
            "initializer": keras.initializers.serialize(self.initializer),
        }
        return {**super().get_config(), **own}
