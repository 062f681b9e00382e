"""Parts of a traced graph, taken out to run by themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf

# Tensors of these types are handles to something: they have no value that could be measured or sent.
HANDLES = (tf.resource, tf.variant)


def ancestors(tensors: Iterable[tf.Tensor], stop: frozenset[str] = frozenset()) -> dict[str, tf.Operation]:
    """The operations, by name, that `tensors` are computed by, without those behind the tensors named in `stop`."""
    found: dict[str, tf.Operation] = {}
    waiting = [tensor for tensor in tensors if tensor.name not in stop]
    while waiting:
        op = waiting.pop().op
        if op.name not in found:
            found[op.name] = op
            waiting += [tensor for tensor in op.inputs if tensor.name not in stop]
    return found


class GraphPart:
    """The part of a traced function that leads from some of its tensors to others.

    Called inside of another function it adds its operations there, and shares variables and lookup tables with the
    function that it was taken from. Checks (asserts) come along where they depend on nothing but the part's feeds.

    Args:
        graph: of a concrete function without loops.
        feeds: tensors that are given.
        fetches: tensors that are wanted.

    Raises:
        ValueError: `fetches` depend on an input of the function that is not among `feeds`.
    """

    def __init__(self, graph: Any, feeds: Sequence[tf.Tensor], fetches: Sequence[tf.Tensor]) -> None:
        self._feeds = [tensor.name for tensor in feeds]
        self._fetches = [tensor.name for tensor in fetches]
        stop = frozenset(self._feeds)
        self.operations = ancestors(fetches, stop)
        self._captures = {inside.name: outside for outside, inside in graph.captures}
        for check in graph.control_outputs:
            needed = ancestors(check.inputs, stop)
            if check.type in ("Assert", "If", "StatelessIf") and not self._given_elsewhere(needed):
                self.operations.update(needed)
                self.operations[check.name] = check
        if missing := self._given_elsewhere(self.operations):
            raise ValueError(f"The part needs inputs that are not fed: {missing}.")
        whole = graph.as_graph_def(add_shapes=False)
        self._graph_def = tf.compat.v1.GraphDef(library=whole.library, versions=whole.versions)
        self._inside = {name for name in self.operations if f"{name}:0" not in self._captures}
        for node in whole.node:
            if node.name in self._inside:
                kept = self._graph_def.node.add()
                kept.CopyFrom(node)
                # The order that control edges gave to reads and checks is made anew where the part is used.
                del kept.input[:]
                kept.input.extend(name for name in node.input if not name.startswith("^"))
                kept.attr.pop("_class", None)  # places it beside an operation that may be left out

    def _given_elsewhere(self, operations: Mapping[str, tf.Operation]) -> list[str]:
        return sorted(
            name for name, op in operations.items() if op.type == "Placeholder" and f"{name}:0" not in self._captures
        )

    def __call__(self, values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The fetches for `values` of the feeds; inside of a function."""
        graph = tf.compat.v1.get_default_graph()
        # As tensors of this graph, which may be a branch inside of the one that has the values.
        given = {name: tf.identity(value) for name, value in zip(self._feeds, values, strict=True)}
        for name, outside in self._captures.items():
            if name.removesuffix(":0") in self.operations:
                given[name] = graph.capture(outside)
        wanted = [name for name in self._fetches if name not in given]
        used = {_tensor_name(name) for node in self._graph_def.node for name in node.input}
        used_given = {name: value for name, value in given.items() if name in used}
        found = dict(
            zip(wanted, tf.graph_util.import_graph_def(self._graph_def, used_given, wanted, name="part"), strict=True)
        )
        return [given[name] if name in given else found[name] for name in self._fetches]


def observed_shapes(graph: Any, inputs: Mapping[str, tf.Tensor]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a traced function, by the tensor's name, for given values of its inputs by name."""
    placeholders = {tensor.op.name: tensor for tensor in graph.inputs if tensor.dtype not in HANDLES}
    tensors = [t for op in graph.get_operations() for t in op.outputs if t.dtype not in HANDLES]
    known = {t.name: tuple(t.shape) for t in tensors if t.shape.is_fully_defined()}
    unknown = [tensor for tensor in tensors if tensor.name not in known]
    feeds = list(placeholders.values())
    part = GraphPart(graph, feeds, unknown)

    def measure(values: list[tf.Tensor]) -> list[tf.Tensor]:
        return [tf.shape(tensor) for tensor in part(values)]

    given = [tf.convert_to_tensor(inputs[tensor.op.name]) for tensor in feeds]
    specs = [tf.TensorSpec.from_tensor(value) for value in given]
    measured = tf.function(measure, autograph=False).get_concrete_function(specs)(given)
    return known | {t.name: tuple(map(int, shape)) for t, shape in zip(unknown, measured, strict=True)}


def _tensor_name(name: str) -> str:
    return name if ":" in name else f"{name}:0"
