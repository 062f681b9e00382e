"""Where to cut the graph of one request: what of it is the user's state.

In the graph for one user and N items, some operations depend on the user alone. Those could all run in advance, and
what they hand to the others is the user's state. But not everything is worth sending: a tensor that was only tiled
or multiplied out is smaller before. So each such operation either runs in advance, and what it hands over costs the
time to send it, or runs with the items, and costs its own time. The cheapest choice is a minimum cut
(Picard, 1976: closures of a graph), found by augmenting paths (Edmonds and Karp, 1972).
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Sequence

import tensorflow as tf

from easyrec_lite.serving.costs import Shapes, cost_of, tensor_bytes
from easyrec_lite.serving.graph_part import HANDLES, ancestors

# Rough times in nanoseconds; only their order of size matters.
_SEND_BYTE = 1.0
_SEND_TENSOR = 2_000.0
_SEND_TEXT = 1e7  # text is the raw input: sending it back and forth means that nothing was computed in advance
_RUN_OPERATION = 1_000.0
_RUN_FLOP = 0.02
_RUN_BYTE = 0.25
_LOOK_UP = 1e9  # tables are looked up once a user, never again with the items

_LOOKUPS = frozenset({"ResourceGather", "ResourceGatherNd", "LookupTableFindV2"})


def user_state(
    inputs: Sequence[tf.Tensor], others: Sequence[tf.Tensor], fetches: Sequence[tf.Tensor], shapes: Shapes
) -> list[tf.Tensor]:
    """The tensors that `fetches` need of what depends on `inputs` alone, in the order of the graph.

    Args:
        inputs: of the graph, the user's.
        others: the graph's other inputs.
        fetches: what is to be computed from the state and `others`.
        shapes: of all tensors for a typical request, by name.
    """
    needed = ancestors(fetches)
    graph = fetches[0].graph
    order = [op for op in graph.get_operations() if op.name in needed]
    of_user, of_others = _dependants(order, inputs), _dependants(order, others)
    alone = [op for op in order if op.name in of_user and op.name not in of_others]
    names = {op.name for op in alone}
    network = _Network()
    for op in alone:
        given = op.type == "Placeholder"
        # From the source to an operation: what it costs to run it with the items.
        network.add("source", op.name, math.inf if given else _run_time(op, shapes))
        for tensor in op.inputs:
            if tensor.op.name in names:  # what runs in advance takes nothing from what runs with the items
                network.add(op.name, tensor.op.name, math.inf)
    for op in order:
        for tensor in op.inputs:
            if tensor.op.name in names:
                if not network.has(tensor.op.name, tensor.name):
                    network.add(tensor.op.name, tensor.name, _send_time(tensor, shapes))
                network.add(tensor.name, op.name if op.name in names else "sink", math.inf)
    for tensor in fetches:
        if tensor.op.name in names:
            network.add(tensor.op.name, tensor.name, _send_time(tensor, shapes))
            network.add(tensor.name, "sink", math.inf)
    before = network.source_side()
    return [t for op in alone if op.name in before for t in op.outputs if t.name in network and t.name not in before]


def _dependants(order: Sequence[tf.Operation], inputs: Sequence[tf.Tensor]) -> set[str]:
    """Names of the operations that depend on the values of `inputs`."""
    found = {tensor.op.name for tensor in inputs}
    for op in order:
        if any(tensor.op.name in found for tensor in op.inputs):
            found.add(op.name)
    return found


def _send_time(tensor: tf.Tensor, shapes: Shapes) -> float:
    if tensor.dtype in HANDLES:
        return math.inf
    text = _SEND_TEXT if tensor.dtype == tf.string else 0.0
    return _SEND_TENSOR + _SEND_BYTE * tensor_bytes(tensor, shapes) + text


def _run_time(op: tf.Operation, shapes: Shapes) -> float:
    cost = cost_of(op, shapes)
    return _RUN_OPERATION + _RUN_FLOP * cost.flops + _RUN_BYTE * cost.bytes + (_LOOK_UP if op.type in _LOOKUPS else 0.0)


class _Network:
    """A flow network between "source" and "sink"."""

    def __init__(self) -> None:
        self._left: defaultdict[str, dict[str, float]] = defaultdict(dict)

    def __contains__(self, node: str) -> bool:
        return node in self._left

    def has(self, start: str, end: str) -> bool:
        return end in self._left[start]

    def add(self, start: str, end: str, capacity: float) -> None:
        self._left[start][end] = self._left[start].get(end, 0.0) + capacity
        self._left[end].setdefault(start, 0.0)

    def source_side(self) -> set[str]:
        """The nodes on the source's side of a minimum cut."""
        while True:
            parent = self._search()
            if "sink" not in parent:
                return set(parent)
            path, node = [], "sink"
            while node != "source":
                path.append((parent[node], node))
                node = parent[node]
            flow = min(self._left[start][end] for start, end in path)
            if math.isinf(flow):
                raise ValueError(f"What depends on the user alone can't be sent: {[end for _, end in path]}.")
            for start, end in path:
                self._left[start][end] -= flow
                self._left[end][start] += flow

    def _search(self) -> dict[str, str]:
        """Nodes that the source still reaches, each with the one before it, by breadth."""
        parent = {"source": ""}
        waiting = deque(["source"])
        while waiting and "sink" not in parent:
            node = waiting.popleft()
            for end, capacity in self._left[node].items():
                if capacity > 1e-9 and end not in parent:
                    parent[end] = node
                    waiting.append(end)
        return parent
