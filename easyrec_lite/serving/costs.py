"""What a graph's operations cost: floating-point operations and bytes, counted from the shapes of one request."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import tensorflow as tf

Shapes = Mapping[str, tuple[int, ...]]

_FREE = frozenset({"Const", "Placeholder", "ReadVariableOp", "Identity", "IdentityN", "NoOp", "Shape", "Reshape"})
# Operations that move values and compute none.
_MOVES = frozenset(
    {
        "BroadcastTo",
        "Cast",
        "Concat",
        "ConcatV2",
        "ExpandDims",
        "Fill",
        "Gather",
        "GatherNd",
        "GatherV2",
        "Pack",
        "Pad",
        "PadV2",
        "Range",
        "Rank",
        "ResourceGather",
        "ScatterNd",
        "Size",
        "Slice",
        "Split",
        "SplitV",
        "Squeeze",
        "StopGradient",
        "StridedSlice",
        "Tile",
        "Transpose",
        "Unpack",
        "ZerosLike",
        "OnesLike",
    }
)


@dataclass(frozen=True)
class Cost:
    """Work of some operations.

    Attributes:
        flops: floating-point operations; a multiplication and an addition are two.
        bytes: written, plus those of variables that are read whole or by rows.
    """

    flops: int = 0
    bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.bytes + other.bytes)


def cost_of(op: tf.Operation, shapes: Shapes) -> Cost:
    """The cost of one operation; what runs inside of a loop has no one shape, and is not counted.

    Args:
        op: of a graph.
        shapes: of its tensors, by name.
    """
    written = sum(tensor_bytes(tensor, shapes) for tensor in op.outputs)
    return Cost(_flops(op, shapes), 0 if op.type in _FREE else written)


def total(operations: Iterable[tf.Operation], shapes: Shapes) -> Cost:
    """The cost of several operations."""
    return sum((cost_of(op, shapes) for op in operations), Cost())


def by_type(operations: Iterable[tf.Operation], shapes: Shapes) -> dict[str, Cost]:
    """Costs by the type of the operation, the most expensive in flops first."""
    result: dict[str, Cost] = {}
    for op in operations:
        result[op.type] = result.get(op.type, Cost()) + cost_of(op, shapes)
    return dict(sorted(result.items(), key=lambda entry: (-entry[1].flops, -entry[1].bytes)))


def tensor_bytes(tensor: tf.Tensor, shapes: Shapes) -> int:
    """Size of a tensor; of a handle 0, of a string 16 bytes an element."""
    if tensor.name not in shapes:
        return 0
    return math.prod(shapes[tensor.name]) * (16 if tensor.dtype == tf.string else tensor.dtype.size)


def _flops(op: tf.Operation, shapes: Shapes) -> int:
    if op.type in _FREE or op.type in _MOVES or not op.outputs or op.outputs[0].name not in shapes:
        return 0
    elements = math.prod(shapes[op.outputs[0].name])
    if op.type == "MatMul":
        rows = shapes[op.inputs[0].name]
        return 2 * elements * (rows[0] if op.get_attr("transpose_a") else rows[1])
    if op.type in ("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"):
        rows = shapes[op.inputs[0].name]
        return 2 * elements * (rows[-2] if op.get_attr("adj_x") else rows[-1])
    if op.type == "Conv2D":
        return 2 * elements * math.prod(shapes[op.inputs[1].name][:-1])
    if op.type == "SparseTensorDenseMatMul":
        return 2 * shapes[op.inputs[1].name][0] * shapes[op.outputs[0].name][-1]
    if not op.outputs[0].dtype.is_floating:
        return 0
    # Elementwise: one an output; reductions: one an input.
    inputs = [math.prod(shapes[t.name]) for t in op.inputs if t.name in shapes and t.dtype.is_floating]
    return max([elements, *inputs])
