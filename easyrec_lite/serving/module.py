"""The graphs of an export: from raw columns to predictions, whole or in two parts.

serving_default   columns, the user's with one row or N ──▶ predictions [N]
serving_tiled     columns, all with N rows ──▶ predictions [N]
user              the user's columns ──▶ state           ┐ serving_default for one user, cut in two
score             state, the items' columns ──▶ predictions [N] ┘
serving_cached    columns of one user and N items ──▶ predictions [N]; keeps the state in the model
user_embedding    what the user's vector is made of ──▶ vectors [N, D]    (two-tower models,
item_embedding    what the item's vector is made of ──▶ vectors [N, D]     likewise)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from easyrec_lite.embeddings import StoredRows, store_rows
from easyrec_lite.models import Recommender, repeat_row, repeated
from easyrec_lite.serving.columns import SINGLE_INPUT, ServedColumn, as_trained, separator_of, split_single_input
from easyrec_lite.serving.costs import Cost, tensor_bytes, total
from easyrec_lite.serving.cut import user_state
from easyrec_lite.serving.graph_part import GraphPart, ancestors, observed_shapes
from easyrec_lite.serving.user_cache import CacheOptions, UserCache, serialised

DEFAULT, TILED, USER, SCORE = "serving_default", "serving_tiled", "user", "score"
CACHED = "serving_cached"
USER_EMBEDDING, ITEM_EMBEDDING = "user_embedding", "item_embedding"
STATE_VERSION = "user_state_version"

_TYPICAL_ITEMS = 100
_TYPICAL_STEPS = 50

Tensors = Mapping[str, tf.Tensor]


@dataclass(frozen=True)
class StateTensor:
    """One tensor of the user's state.

    Attributes:
        name: of the output of `user` and the input of `score`.
        spec: its type and shape.
        source: the operation that computes it.
        typical_bytes: for a history of 50 steps.
    """

    name: str
    spec: tf.TensorSpec
    source: str
    typical_bytes: int


class ServingModule(tf.Module):
    """The graphs from raw columns to predictions, with the variables they need and nothing else.

    Args:
        recommender: for inference, restored.
        columns: the inputs.
        separator: between the cells of the single-string form of `serving_default`; None for one input a column.
        version: of the export; a state is only taken by the version that made it.
        cache: adds `serving_cached`, where there is a state to keep.
        table_type: of the tables' rows: "float32", "bfloat16" or "int8". The recommender's are rounded likewise.

    Attributes:
        functions: the signatures by name; `user` and `score` where there are columns of both sides, `*_embedding` for
            two towers.
        state: what `user` hands to `score`.
        costs: of `user` and `score`, for a typical request.
    """

    def __init__(
        self,
        recommender: Recommender,
        columns: Sequence[ServedColumn],
        separator: str | None,
        version: int,
        cache: CacheOptions | None = None,
        table_type: str = "float32",
    ) -> None:
        super().__init__(name="serving")
        # What a SavedModel keeps: tables, dense variables, vocabularies. The recommender itself is no attribute, for
        # then each of its layers would be saved too, with a graph of its own.
        self.tables: dict[str, tf.Variable | StoredRows] = dict(recommender.collection.variables_by_bucket)
        if table_type != "float32":
            self.tables = {key: store_rows(table, table_type) for key, table in self.tables.items()}
        self.dense = [variable.value for variable in recommender.dense_variables]
        self.features = list(recommender.features.values())
        self._columns = tuple(columns)
        self._user = tuple(column for column in columns if column.of_user)
        self._items = tuple(column for column in columns if not column.of_user)
        self._version = version
        self.functions: dict[str, Any] = {}
        self.state: tuple[StateTensor, ...] = ()
        self.costs: dict[str, Cost] = {}
        self._operations: dict[str, list[tf.Operation]] = {}

        tables = self.tables

        def predict(inputs: Tensors) -> Tensors:
            batch = recommender.encode(as_trained(inputs, columns), targets=False, distinct=False)
            return recommender.forward(tables, batch)[0]

        def predict_request(inputs: Tensors) -> Tensors:
            return recommender.predict_request(tables, as_trained(inputs, columns))

        self._predict = _function(predict, {c.name: c.spec() for c in columns})
        self._predict_request: Any = None
        if self._user and self._items:
            specs = {c.name: c.spec(1 if c.of_user else None) for c in columns}
            self._predict_request = _function(predict_request, specs)
        self._add_whole(separator)
        self._add_embeddings()
        if self._predict_request is not None:
            separators = {column.name: separator_of(column.name, recommender.features) for column in columns}
            self._add_parts(separators, cache)

    def save(self, path: Path) -> None:
        """Writes the SavedModel."""
        # Nobody trains an export: without the gradients that layers define by hand.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(self, str(path), signatures=self.functions, options=options)

    def describe(self) -> dict[str, dict[str, Any]]:
        """Inputs and outputs of each signature, for the export's description."""
        return {
            name: {
                "inputs": sorted(function.structured_input_signature[0][0]),
                "outputs": sorted(function.graph.structured_outputs),
            }
            for name, function in sorted(self.functions.items())
        }

    def count(self, inputs: Tensors) -> dict[str, Cost]:
        """What one request costs: `serving_tiled`, `serving_default` for one user, `user` and `score`.

        Args:
            inputs: of a request, the user's columns with one row; `serving_tiled` is given that row once an item.
        """
        rows = tf.shape(inputs[self._items[0].name])[0]
        whole = repeated(inputs, frozenset(column.name for column in self._user), rows)
        costs = {}
        for name, function, given in ((TILED, self._predict, whole), (DEFAULT, self._predict_request, inputs)):
            graph = function.graph
            shapes = observed_shapes(graph, {x.op.name: given[n] for n, x in self._inputs(graph).items()})
            costs[name] = total(ancestors(graph.structured_outputs.values()).values(), shapes)
            if name == DEFAULT:
                costs |= {part: total(operations, shapes) for part, operations in self._operations.items()}
        return costs

    # ---- whole

    def _add_whole(self, separator: str | None) -> None:
        def tiled(inputs: Tensors) -> Tensors:
            return _with_text(self._predict(_checked(inputs, ())))

        def from_text(inputs: Tensors) -> Tensors:
            return _with_text(self._predict(split_single_input(inputs[SINGLE_INPUT], self._columns, separator or ",")))

        specs = {column.name: column.spec() for column in self._columns}
        self.functions[TILED] = _function(tiled, specs)
        if separator is not None:
            one = tf.TensorSpec([None], tf.string, SINGLE_INPUT)
            self.functions[DEFAULT] = _function(from_text, {SINGLE_INPUT: one})
        elif self._predict_request is None:
            self.functions[DEFAULT] = self.functions[TILED]
        else:
            self.functions[DEFAULT] = _function(self._either, specs)

    def _either(self, inputs: Tensors) -> Tensors:
        """By the graph for one user if the user's columns have one row each, else by that for all rows."""
        user = frozenset(column.name for column in self._user)
        counts, names = _row_counts(inputs)
        rows = counts[names.index(self._items[0].name)]
        one = tf.reduce_all(counts == tf.where([name in user for name in names], 1, rows))

        def one_user() -> Tensors:
            # Cut, not declared to have one row: TensorFlow may believe that of the other branch's inputs too, or check
            # it where this branch is not taken.
            fixed = {name: x[:1] if name in user else x for name, x in inputs.items()}
            return {name: repeat_row(x, rows) for name, x in _with_text(self._predict_request(fixed)).items()}

        def any_users() -> Tensors:
            return _with_text(self._predict(repeated(_checked(inputs, self._user), user, rows)))

        return tf.cond(one, one_user, any_users)

    # ---- two towers

    def _add_embeddings(self) -> None:
        graph = self._predict.graph
        for signature, output in ((USER_EMBEDDING, "user_tower_emb"), (ITEM_EMBEDDING, "item_tower_emb")):
            if output in graph.structured_outputs:
                self.functions[signature] = self._embedding(graph, output)

    def _embedding(self, graph: Any, output: str) -> Any:
        """The vectors of one tower, from the columns that they are made of."""
        vectors, inputs = graph.structured_outputs[output], self._inputs(graph)
        needed = ancestors([vectors])
        columns = [column for column in self._columns if inputs[column.name].op.name in needed]
        part = GraphPart(graph, [inputs[column.name] for column in columns], [vectors])

        def embed(given: Tensors) -> Tensors:
            passed = _checked(given, ())
            return {output: part([passed[column.name] for column in columns])[0]}

        return _function(embed, {column.name: column.spec() for column in columns})

    # ---- the two parts of a request

    def _add_parts(self, separators: Mapping[str, str], cache: CacheOptions | None) -> None:
        graph = self._predict_request.graph
        inputs = self._inputs(graph)
        outputs = {n: x for n, x in sorted(graph.structured_outputs.items()) if x.shape[0] is None}
        if not outputs:
            return  # nothing depends on the items
        users, others = ([inputs[column.name] for column in side] for side in (self._user, self._items))
        typical = {inputs[c.name].op.name: _typical_values(c, separators[c.name]) for c in self._columns}
        shapes = observed_shapes(graph, typical)
        state = user_state(users, others, list(outputs.values()), shapes)
        before = GraphPart(graph, users, state)
        after = GraphPart(graph, [*state, *others], list(outputs.values()))
        self.state = tuple(
            StateTensor(f"state_{i}", tf.TensorSpec(x.shape, x.dtype, f"state_{i}"), x.op.name, tensor_bytes(x, shapes))
            for i, x in enumerate(state)
        )
        self._operations = {USER: [*before.operations.values()], SCORE: [*after.operations.values()]}
        self.costs = {part: total(operations, shapes) for part, operations in self._operations.items()}
        names = [tensor.name for tensor in self.state]
        stamp = tf.constant([self._version], tf.int64)

        def user(given: Tensors) -> Tensors:
            found = before([given[column.name] for column in self._user])
            return {STATE_VERSION: tf.identity(stamp), **dict(zip(names, found, strict=True))}

        def score(given: Tensors) -> Tensors:
            items = _checked({column.name: given[column.name] for column in self._items}, ())
            with self._own_state(given[STATE_VERSION]):
                passed = [tf.identity(given[name]) for name in names]
            values = [*passed, *(items[column.name] for column in self._items)]
            return dict(zip(outputs, after(values), strict=True))

        self.functions[USER] = _function(user, {column.name: column.spec(1) for column in self._user})
        specs = {tensor.name: tensor.spec for tensor in self.state}
        specs |= {column.name: column.spec() for column in self._items}
        self.functions[SCORE] = _function(score, {STATE_VERSION: tf.TensorSpec([1], tf.int64, STATE_VERSION), **specs})
        if cache is not None:
            self.cache = UserCache(cache, [tensor.spec.dtype for tensor in self.state])
            self._add_cached(self.cache, before, after, sorted(outputs))

    def _add_cached(self, cache: UserCache, before: GraphPart, after: GraphPart, outputs: Sequence[str]) -> None:
        found_by = [column.name for column in self._user if cache.options.key in ("", column.name)]

        def cached(given: Tensors) -> Tensors:
            users = [given[column.name] for column in self._user]
            items = _checked({column.name: given[column.name] for column in self._items}, ())
            key = serialised([given[name] for name in found_by])
            specs = [tensor.spec for tensor in self.state]
            state, told = cache(key, lambda: before(users), specs)
            values = [*state, *(items[column.name] for column in self._items)]
            return {**dict(zip(outputs, after(values), strict=True)), **told}

        specs = {column.name: column.spec(1 if column.of_user else None) for column in self._columns}
        self.functions[CACHED] = _function(cached, specs)

    def _own_state(self, version: tf.Tensor) -> Any:
        message = (
            f"The user's state is of another version of the model; expected {self._version}, by its `user`. Found:"
        )
        fits = tf.reduce_all(version == self._version)
        return tf.control_dependencies([tf.debugging.Assert(fits, [message, tf.strings.as_string(version)])])

    def _inputs(self, graph: Any) -> dict[str, tf.Tensor]:
        """The inputs of a traced graph by column: those of one dict, in the order of its sorted keys."""
        names = sorted(column.name for column in self._columns)
        return dict(zip(names, graph.inputs[: len(names)], strict=True))


def _function(python: Callable[[Tensors], Tensors], specs: Mapping[str, tf.TensorSpec]) -> Any:
    """The function of one dict, traced once."""
    return tf.function(python, input_signature=[dict(specs)], autograph=False).get_concrete_function()


def _checked(inputs: Tensors, user: Sequence[ServedColumn]) -> dict[str, tf.Tensor]:
    """The inputs, once they are seen to have N rows each, those of `user` 1 or N."""
    single = frozenset(column.name for column in user)
    counts, names = _row_counts(dict(sorted(inputs.items(), key=lambda item: item[0] in single)))
    alone = [name in single for name in names]
    fits = tf.reduce_all((counts == counts[alone.index(False)]) | (tf.constant(alone) & (counts == 1)))
    expected = "one number of rows for all" + (", or 1 for all of the user's" if single else "")
    found = tf.strings.join([tf.constant(names), tf.strings.as_string(counts)], ": ")
    message = f"The columns of a request have different numbers of rows; expected {expected}. Found:"
    # The operation itself: `tf.debugging.Assert` would put it into a branch of its own.
    check = tf.raw_ops.Assert(condition=fits, data=[message, found], summarize=1000)
    with tf.control_dependencies([check]):
        return dict(zip(inputs, tf.identity_n(list(inputs.values())), strict=True))


def _row_counts(inputs: Tensors) -> tuple[tf.Tensor, list[str]]:
    """Numbers of rows `[columns]`, and the columns that they are of, by few operations."""
    names: list[str] = []
    counts: list[tf.Tensor] = []
    for dtype in sorted({x.dtype for x in inputs.values()}, key=lambda dtype: dtype.name):
        of_type = [name for name, x in inputs.items() if x.dtype == dtype]
        names += of_type
        counts += tf.shape_n([inputs[name] for name in of_type])
    return tf.concat(counts, axis=0), names


def _typical_values(column: ServedColumn, separator: str) -> tf.Tensor:
    """Values such as a request has, as far as sizes go; one value is read of many where that is all that is wanted."""
    rows = 1 if column.of_user else _TYPICAL_ITEMS
    if column.dtype != tf.string:
        return tf.ones([rows], column.dtype)
    return tf.fill([rows], separator.join(["1"] * _TYPICAL_STEPS))


def _with_text(predictions: Tensors) -> dict[str, tf.Tensor]:
    """The predictions with EasyRec's `user_emb` and `item_emb`: vectors as text, numbers joined by commas."""
    text = {
        f"{side}_emb": tf.strings.reduce_join(
            tf.strings.as_string(predictions[f"{side}_tower_emb"]), axis=1, separator=","
        )
        for side in ("user", "item")
        if f"{side}_tower_emb" in predictions
    }
    return {**predictions, **text}
