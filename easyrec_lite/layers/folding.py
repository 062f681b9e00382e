"""Batch norms as part of the dense layers beside them, for exports.

    (x W + b) * factor + shift  =  x (W * factor) + b * factor + shift
    (x * factor + shift) W + b  =  x (factor[:, None] * W) + shift W + b

At inference a batch norm is a factor and a shift by column. With the factor folded into the kernel, TensorFlow runs
product, shift and activation as one kernel (Jacob et al., 2018, section 3.2).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import keras
import tensorflow as tf

from easyrec_lite.layers.batch_norm import BatchNorm
from easyrec_lite.layers.dense import Dense
from easyrec_lite.layers.mlp import MLP


@runtime_checkable
class NormsInputs(Protocol):
    """A layer that normalises what it hands to MLPs.

    Attributes:
        normed_inputs: each norm with the MLP that reads its output, and nothing else does.
    """

    @property
    def normed_inputs(self) -> list[tuple[BatchNorm, MLP]]:
        """See the class."""
        ...


@contextmanager
def folded_batch_norms(*layers: keras.layers.Layer) -> Iterator[None]:
    """Within it, built `layers` are for inference only: kernels and biases do what their batch norms did.

    What is traced and saved here holds the folded values; afterwards the layers are as they were, bit by bit.
    """
    # Keras has no public way to all the layers inside of one.
    inside = [inner for layer in layers for inner in layer._flatten_layers()]
    norms = [layer for layer in inside if isinstance(layer, BatchNorm)]
    variables = [variable for layer in inside if isinstance(layer, Dense | BatchNorm) for variable in layer.variables]
    kept = [(variable, variable.numpy()) for variable in variables]
    try:
        for layer in inside:
            for norm, mlp in layer.normed_inputs if isinstance(layer, NormsInputs) else ():
                _fold_input(norm, mlp)
        for layer in inside:
            for dense, norm in layer.normed if isinstance(layer, MLP) else ():
                _fold_output(dense, norm)
        yield
    finally:
        for norm in norms:
            norm.remaining = "all"
        for variable, values in kept:
            variable.assign(values)


def _fold_output(dense: Dense, norm: BatchNorm) -> None:
    if norm.beta is None:
        return
    factor, shift = norm.affine()
    dense.kernel.assign(dense.kernel * factor)
    if dense.use_bias:
        dense.bias.assign(dense.bias * factor)
    norm.beta.assign(shift)
    norm.remaining = "shift"


def _fold_input(norm: BatchNorm, mlp: MLP) -> None:
    if not mlp.denses:
        return
    dense = mlp.denses[0]
    factor, shift = norm.affine()
    shift = tf.linalg.matvec(dense.kernel, shift, transpose_a=True)
    after = [norm for normed, norm in mlp.normed if normed is dense]
    if dense.use_bias:
        dense.bias.assign_add(shift)
    elif after:
        after[0].moving_mean.assign_sub(shift)  # it takes that off the same sums
    else:
        return
    dense.kernel.assign(dense.kernel * factor[:, None])
    norm.remaining = "nothing"
