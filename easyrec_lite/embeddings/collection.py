"""The fused collection: every table of one width is a range of rows of one variable.

    encoded ids ──plan──▶ distinct rows of each variable, and where each id's row stands among them   (input pipeline)
    distinct ──gather──▶ packed rows [U, dim * (1 + slots)] ──▶ weights [U, dim] ──outputs──▶ one tensor a request
    gradient of weights [U, dim] ──update──▶ new packed rows, written back once

Row 0 of each variable is all zeros and stands for "missing"; it is always the first of the distinct rows and never
written. Nothing here costs time in proportion to the rows of a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Seq
from typing import NamedTuple

import tensorflow as tf

from easyrec_lite.embeddings._ops import bag_numbers, distinct_rows, shares, sum_rows, take, transposed
from easyrec_lite.embeddings.buckets import Bucket
from easyrec_lite.embeddings.optimizers import RowOptimizer
from easyrec_lite.embeddings.requests import Concat, Pooled, Request, Sequence, SequenceOutput
from easyrec_lite.embeddings.stored import StoredRows
from easyrec_lite.embeddings.tables import TableSpec
from easyrec_lite.embeddings.views import TableView, write_block
from easyrec_lite.features import Ids


class Plan(NamedTuple):
    """What a batch needs of the tables, computed ahead of the step.

    Attributes:
        distinct: per variable, `[U]` distinct rows; the first is the missing row 0.
        positions: per request, places in `distinct` of its ids: `[B, F]` for Concat, `[N]` for the others.
        splits: per Pooled or Sequence request, row_splits `[B + 1]` int64.
        bags: per request that combines values, `[N]` int64: the row (Pooled) or the step (Sequence with several
            values a step) that each value belongs to.
        weights: per request that combines values, `[N]` float32: what each value counts in the sum over its bag.
    """

    distinct: dict[str, tf.Tensor]
    positions: dict[str, tf.Tensor]
    splits: dict[str, tf.Tensor]
    bags: dict[str, tf.Tensor]
    weights: dict[str, tf.Tensor]


class EmbeddingCollection(tf.Module):
    """Owns every table.

    Args:
        tables: the logical tables; names are unique.
        requests: the outputs that models need, in the order in which `outputs` returns them.
        optimizer: update rule of the rows; None for inference, where a row holds weights only.
        seed: of the initial values.
        dense_decay: update all rows each step, as the textbook's Adam does.
        allocate: False makes variables of the missing row only, for those who look at the graph and don't run it.

    Raises:
        ValueError: tables of one name, or a request for tables that don't exist or don't go together.
        ConfigError: an initializer that doesn't fit its table.
    """

    def __init__(
        self,
        tables: Seq[TableSpec],
        requests: Seq[Request],
        optimizer: RowOptimizer | None = None,
        seed: int = 1,
        dense_decay: bool = False,
        allocate: bool = True,
    ) -> None:
        super().__init__(name="embeddings")
        self.tables = {table.name: table for table in tables}
        if len(self.tables) != len(tables):
            raise ValueError(f"Tables need different names. Received: {[table.name for table in tables]}.")
        for request in requests:
            _check(request, self.tables)
        self.requests = tuple(requests)
        self.optimizer = optimizer
        self._dense_decay = dense_decay
        dims = sorted({table.dim for table in tables}, reverse=True)
        self._buckets = [Bucket(dim, [t for t in tables if t.dim == dim], requests) for dim in dims]
        self._bucket_of = {table.name: bucket for bucket in self._buckets for table in bucket.tables}
        self.variables_by_bucket = {bucket.key: self._create(bucket, seed, allocate) for bucket in self._buckets}

    # ---- creation and views

    def _create(self, bucket: Bucket, seed: int, allocate: bool) -> tf.Variable:
        slots = self.optimizer.initial_slots if self.optimizer else ()
        shape = [bucket.rows if allocate else 1, bucket.dim * (1 + len(slots))]
        variable = tf.Variable(tf.zeros(shape), trainable=False, name=f"fused_{bucket.key}")
        for table in bucket.tables if allocate else ():
            for start, values in table.initial_blocks(seed):
                packed = [values, *(tf.fill(values.shape, value) for value in slots)]
                write_block(variable, bucket.offsets[table.name] + start, 0, tf.concat(packed, axis=1))
        return variable

    def views(self, with_slots: bool = True) -> list[TableView]:
        """Every table, and every slot of the optimizer, under its own logical name."""
        slots = self.optimizer.slots if self.optimizer and with_slots else ()
        return [
            TableView(
                name=f"embeddings/{table.name}/{part}",
                variable=self.variables_by_bucket[bucket.key],
                first_row=bucket.offsets[table.name],
                first_column=place * table.dim,
                shape=(table.rows, table.dim),
            )
            for bucket in self._buckets
            for table in bucket.tables
            for place, part in enumerate(("weights", *slots))
        ]

    # ---- the way of a batch

    def plan(self, encoded: Mapping[str, Ids], distinct: bool = True) -> Plan:
        """Rows that a batch needs, in ops that run in a `tf.data` map as in a SavedModel.

        Args:
            encoded: ids per feature: `[B]`, ragged `[B, None]`, or `[B, None, None]` for steps of several values.
                An id outside of the table, such as -1, is missing.
            distinct: look each row up once; without it `positions` holds rows of the variables themselves (serving,
                where a batch repeats little), and each request may have a number of rows of its own.

        Raises:
            ValueError: without `distinct` where rows also hold optimizer state.
        """
        if self.optimizer and not distinct:
            raise ValueError("Only a collection without an optimizer can be read row by row: build one for inference.")
        if not distinct:
            return self._row_by_row(encoded)
        plan = Plan({}, {}, {}, {}, {})
        shared: dict[tuple[object, ...], tuple[tf.Tensor, list[tf.Tensor]]] = {}
        parts: dict[str, list[tf.Tensor]] = {}
        matrices: dict[tuple[object, tuple[int, ...]], tf.Tensor] = {}
        for bucket in self._buckets:
            if bucket.space not in shared:
                shared[bucket.space] = distinct_rows(bucket.row_numbers(encoded), bucket.row_dtype)
            plan.distinct[bucket.key], parts[bucket.key] = shared[bucket.space]
        for key, request in self._keyed_requests():
            bucket = self._bucket(request)
            if isinstance(request, Concat):
                pairs = zip(request.features, request.tables, strict=True)
                places = tuple(bucket.dense_place(*pair) for pair in pairs)
                if (bucket.space, places) not in matrices:  # wide and deep tables of the same features share one
                    matrices[bucket.space, places] = transposed(parts[bucket.key][0], places)
                plan.positions[key] = matrices[bucket.space, places]
            else:
                place = bucket.bag_place(request.feature, request.table)
                plan.positions[key] = parts[bucket.key][place + bool(bucket.dense)]
                self._plan_bags(plan, key, request, encoded[request.feature])
        return plan

    def _row_by_row(self, encoded: Mapping[str, Ids]) -> Plan:
        """Each request by itself: its features may have other numbers of rows than those of the next."""
        plan = Plan({bucket.key: tf.zeros([0], bucket.row_dtype) for bucket in self._buckets}, {}, {}, {}, {})
        for key, request in self._keyed_requests():
            plan.positions[key] = self._bucket(request).rows_of(request, encoded)
            if not isinstance(request, Concat):
                self._plan_bags(plan, key, request, encoded[request.feature])
        return plan

    @staticmethod
    def _plan_bags(plan: Plan, key: str, request: Pooled | Sequence, encoded: Ids) -> None:
        ids = encoded.ids
        plan.splits[key] = ids.row_splits
        several = ids.ragged_rank > 1
        if isinstance(request, Pooled) and several:
            raise ValueError(f"Feature {request.feature!r} is a sequence of steps with several values: use Sequence.")
        if isinstance(request, Sequence) and not several:
            return
        splits = ids.values.row_splits if several else ids.row_splits
        weights = None if encoded.weights is None else encoded.weights.flat_values
        plan.bags[key] = bag_numbers(splits)
        present = plan.positions[key] > 0
        plan.weights[key] = shares(request.combiner, present, plan.bags[key], tf.size(splits) - 1, weights)

    def gather(self, plan: Plan) -> dict[str, tf.Tensor]:
        """Packed rows `[U, dim * (1 + slots)]` of each variable."""
        return {key: tf.gather(variable, plan.distinct[key]) for key, variable in self.variables_by_bucket.items()}

    def weights(self, rows: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The weights `[U, dim]` of packed rows: what the loss is differentiated by."""
        return {bucket.key: rows[bucket.key][:, : bucket.dim] for bucket in self._buckets}

    def zero_weights(self, plan: Plan) -> dict[str, tf.Tensor]:
        """Zeros of the shape of `weights`, for those who need shapes and no values."""
        return {bucket.key: tf.zeros([tf.size(plan.distinct[bucket.key]), bucket.dim]) for bucket in self._buckets}

    def outputs(
        self, weights: Mapping[str, tf.Tensor | tf.Variable | StoredRows], plan: Plan
    ) -> list[tf.Tensor | SequenceOutput]:
        """One output a request: see the request types for shapes.

        Args:
            weights: as from `weights`, or the variables themselves (or what is stored of them) where the plan was made
                with `distinct=False`.
            plan: of this batch.
        """
        values: dict[str, tf.Tensor] = {}
        for bucket in self._buckets:
            keys = [key for key, request in self._keyed_requests() if self._bucket(request) is bucket]
            taken = take(weights[bucket.key], [plan.positions[key] for key in keys])
            values.update(zip(keys, taken, strict=True))
        return [self._output(request, values[key], key, plan) for key, request in self._keyed_requests()]

    def _output(self, request: Request, values: tf.Tensor, key: str, plan: Plan) -> tf.Tensor | SequenceOutput:
        if isinstance(request, Concat):
            return tf.reshape(values, [-1, len(request.features) * self._bucket(request).dim])
        splits = plan.splits[key]
        if key in plan.bags:
            bags = tf.size(splits) - 1 if isinstance(request, Pooled) else splits[-1]
            trained = self.optimizer is not None
            values = sum_rows(values, plan.bags[key], bags, plan.weights[key], differentiable=trained)
        return values if isinstance(request, Pooled) else SequenceOutput(values, splits)

    def update(
        self,
        plan: Plan,
        rows: Mapping[str, tf.Tensor],
        gradients: Mapping[str, tf.Tensor | None],
        learning_rate: tf.Tensor,
        step: tf.Tensor,
    ) -> None:
        """Applies the gradients of `weights`; rows that the batch does not name stay as they are.

        Args:
            plan: of this batch.
            rows: as from `gather`.
            gradients: `[U, dim]` per variable; None leaves a variable as it is.
            learning_rate: scalar float32.
            step: scalar int64, 1 in the first step.

        Raises:
            ValueError: the collection was built without an optimizer.
        """
        if self.optimizer is None:
            raise ValueError("This collection was built without an optimizer: it can't be updated.")
        for key, variable in self.variables_by_bucket.items():
            gradient = gradients[key]
            if gradient is None:
                continue
            # The first of the distinct rows is the missing one: nothing is learned there.
            touched, gradient = plan.distinct[key][1:], tf.convert_to_tensor(gradient)[1:]
            if self._dense_decay:
                shape = tf.constant([variable.shape[0], gradient.shape[1]], touched.dtype)
                gradient = tf.scatter_nd(touched[:, None], gradient, shape)
                variable.assign(self.optimizer.update(variable.read_value(), gradient, learning_rate, step))
            else:
                updated = self.optimizer.update(rows[key][1:], gradient, learning_rate, step)
                tf.raw_ops.ResourceScatterUpdate(resource=variable.handle, indices=touched, updates=updated)

    def _keyed_requests(self) -> Iterable[tuple[str, Request]]:
        return ((str(place), request) for place, request in enumerate(self.requests))

    def _bucket(self, request: Request) -> Bucket:
        return self._bucket_of[request.tables[0] if isinstance(request, Concat) else request.table]


def _check(request: Request, tables: Mapping[str, TableSpec]) -> None:
    names = request.tables if isinstance(request, Concat) else (request.table,)
    if unknown := [name for name in names if name not in tables]:
        raise ValueError(f"{request} asks for tables that are not there: {unknown}; there are {sorted(tables)}.")
    if isinstance(request, Concat):
        if len(request.features) != len(names) or not names:
            raise ValueError(f"Concat takes one table a feature. Received: {request}.")
        if len({tables[name].dim for name in names}) > 1:
            raise ValueError(f"The tables of a Concat have one width. Received: {[tables[name] for name in names]}.")
    elif request.combiner not in ("sum", "mean", "sqrtn"):
        raise ValueError(f"Unknown combiner; expected sum, mean or sqrtn. Received: {request}.")
