"""The data flow of a config as a graph: columns, features, tables, groups, model, predictions and losses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from easyrec_lite.embeddings import Concat
from easyrec_lite.models import Recommender
from easyrec_lite.protos import data_pb2, feature_pb2

LAYERS = ("columns", "features", "tables", "groups", "model", "predictions and losses")


@dataclass(frozen=True)
class Node:
    """A box of the drawing.

    Attributes:
        key: unique: the layer's name and the thing's.
        layer: place in LAYERS.
        title: what it is called.
        note: its size, in few characters.
        side: "user", "item", "both" or "" where it is not said.
        shared: of a table: several features look it up.
        more: what else there is to say.
    """

    key: str
    layer: int
    title: str
    note: str = ""
    side: str = ""
    shared: bool = False
    more: str = ""


@dataclass(frozen=True)
class Flow:
    """The graph.

    Attributes:
        name: of the model's class.
        nodes: by key, layer by layer.
        edges: pairs of keys, from left to right.
    """

    name: str
    nodes: dict[str, Node]
    edges: tuple[tuple[str, str], ...]

    def layer(self, number: int) -> list[Node]:
        """Its nodes."""
        return [node for node in self.nodes.values() if node.layer == number]

    def sources(self, key: str) -> list[Node]:
        """What leads to a node."""
        return [self.nodes[start] for start, end in self.edges if end == key]

    def to_text(self) -> str:
        """The graph for terminals: one line a node, with where it comes from."""
        lines = [self.name]
        for number, title in enumerate(LAYERS):
            nodes = self.layer(number)
            lines += ["", f"{title} ({len(nodes)})"]
            width = max((len(node.title) for node in nodes), default=0)
            for node in nodes:
                source = ", ".join(source.title for source in self.sources(node.key))
                parts = [node.note, node.side, "shared" if node.shared else "", f"<- {source}" if source else ""]
                lines.append(f"  {node.title:<{width}}  {'  '.join(part for part in parts if part)}".rstrip())
        return "\n".join(lines)


def flow_of(recommender: Recommender) -> Flow:
    """The flow of a built recommender, whose tables need no rows."""
    nodes: dict[str, Node] = {}
    edges: dict[tuple[str, str], None] = {}
    declared = _declared_sides(recommender)

    def link(start: str, end: str) -> None:
        edges[start, end] = None

    for node in _inputs(recommender, declared):
        nodes[node.key] = node
    for name, feature in recommender.features.items():
        for column in feature.inputs:
            link(f"column {column}", f"feature {name}")
    for table in recommender.collection.tables.values():
        note = f"{table.rows:,} x {table.dim}"
        more = f"{table.bytes / 1e6:,.2f} MB, looked up by {', '.join(table.owners)}"
        key = f"table {table.name}"
        nodes[key] = Node(key, 2, table.name, note, shared=len(table.owners) > 1, more=more)
        for owner in table.owners:
            link(f"feature {owner}", key)
    model = "model"
    for layout in recommender.layouts.values():
        key = f"group {layout.name}"
        width = layout.width or sum(spec.key_width + spec.history_width for spec in layout.histories)
        kind = "histories, for attention" if layout.histories else "wide" if layout.wide else ""
        nodes[key] = Node(key, 3, layout.name, f"width {width}", more=kind)
        for start in _group_sources(recommender, layout.name):
            link(start, key)
        link(key, model)
    in_layers = recommender.parameter_counts()[1]
    nodes[model] = Node(
        model, 4, recommender.config.model_config.model_class, f"{in_layers:,} weights", more="in dense layers"
    )
    for task in recommender.model.tasks:
        key = f"prediction {task.score}"
        nodes[key] = Node(key, 5, task.score, f"of {task.label}" if task.label else "")
        link(model, key)
    for name in recommender.loss_names:
        key = f"loss {name}"
        nodes[key] = Node(key, 5, name, "loss")
        link(model, key)
    return Flow(recommender.config.model_config.model_class, nodes, tuple(edges))


def _inputs(recommender: Recommender, declared: dict[str, str]) -> Iterator[Node]:
    private = {field.input_name for field in recommender.config.data_config.input_fields if field.private}
    for column in recommender.feature_columns:
        more = "private" if column in private else ""
        yield Node(f"column {column}", 0, column, side=declared.get(column, ""), more=more)
    for name, feature in recommender.features.items():
        kind = feature_pb2.FeatureConfig.FeatureType.Name(feature.config.feature_type).removesuffix("Feature")
        size = f"{feature.num_ids:,} ids" if feature.num_ids is not None else f"{feature.width} number(s)"
        sides = {declared.get(column, "") for column in feature.inputs}
        side = sides.pop() if len(sides) == 1 else "both" if "" not in sides else ""
        yield Node(f"feature {name}", 1, name, f"{kind}, {size}", side=side, more=f"reads {', '.join(feature.inputs)}")


def _declared_sides(recommender: Recommender) -> dict[str, str]:
    fields = recommender.config.data_config.input_fields
    return {field.input_name: data_pb2.DatasetConfig.Side.Name(field.side).lower() for field in fields if field.side}


def _group_sources(recommender: Recommender, group: str) -> Iterator[str]:
    """Tables, and features without one, that a group is made of."""
    layout = recommender.layouts[group]
    places = [piece.request for piece in layout.pieces if piece.request >= 0]
    specs = [*layout.histories, *(piece.attention for piece in layout.pieces if piece.attention)]
    places += [place for spec in specs for place in (*spec.keys, *spec.history)]
    for place in places:
        request = recommender.collection.requests[place]
        for table in request.tables if isinstance(request, Concat) else (request.table,):
            yield f"table {table}"
    for piece in layout.pieces:
        if piece.kind in ("numbers", "projection"):
            yield f"feature {piece.feature}"
