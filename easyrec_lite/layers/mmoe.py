"""Multi-gate mixture of experts (Ma et al., 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from easyrec_lite.layers.dense import Dense
from easyrec_lite.layers.mlp import MLP
from easyrec_lite.layers.sided import Sided, apply


@keras.saving.register_keras_serializable("easyrec_lite")
class MMoE(keras.layers.Layer):
    """Experts shared by all tasks, mixed for each task by its own softmax gate: [B, D] -> one [B, H] a task.

    Variables: `expert_<e>/...` (an `MLP`), `gate_<t>/kernel`, `gate_<t>/bias`.

    Args:
        num_tasks: gates, and outputs.
        experts: hidden units of each expert; all must end with the same width.
        mlp: further arguments of the experts' `MLP`s.

    Raises:
        ValueError: there are no tasks or experts, or the experts differ in their last width.
    """

    def __init__(
        self, num_tasks: int, experts: Sequence[Sequence[int]], mlp: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        widths = {tuple(units)[-1:] for units in experts}
        if num_tasks < 1 or len(widths) != 1 or () in widths:
            raise ValueError(
                f"MMoE needs a task, and experts that end with one width. "
                f"Received: num_tasks={num_tasks}, experts={[list(units) for units in experts]}"
            )
        self.num_tasks = num_tasks
        self.expert_units = tuple(tuple(units) for units in experts)
        self.mlp = dict(mlp or {})
        self.experts = [MLP(units, name=f"expert_{e}", **self.mlp) for e, units in enumerate(self.expert_units)]
        self.gates = [Dense(len(self.experts), name=f"gate_{t}") for t in range(num_tasks)]

    @property
    def kernels(self) -> list[keras.Variable]:
        """The kernels of experts and gates, for L2 regularisation."""
        return [
            *(kernel for expert in self.experts for kernel in expert.kernels),
            *(gate.kernel for gate in self.gates if gate.built),
        ]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the variables of experts and gates."""
        for expert in self.experts:
            expert.build(input_shape)
        for gate in self.gates:
            gate.build(input_shape)

    def call(self, x: tf.Tensor | Sided, training: bool | None = None) -> list[tf.Tensor]:
        """[B, D] -> num_tasks tensors [B, H]."""
        experts = tf.stack([apply(expert, x, training=training) for expert in self.experts], axis=1)
        gates = [tf.nn.softmax(apply(gate, x)) for gate in self.gates]
        return tf.unstack(tf.matmul(tf.stack(gates, axis=1), experts), axis=1)

    def call_sided(self, x: Sided, training: bool | None = None) -> list[tf.Tensor]:
        """Sided [B, D] -> num_tasks tensors [B, H], the user's share of the first products computed once."""
        return self.call(x, training)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        own = {"num_tasks": self.num_tasks, "experts": self.expert_units, "mlp": self.mlp}
        return {**super().get_config(), **own}
