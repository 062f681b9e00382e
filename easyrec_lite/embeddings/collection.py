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

from easyrec_lite.embeddings.optimizers import RowOptimizer
from easyrec_lite.embeddings.requests import Concat, Pooled, Request, Sequence, SequenceOutput
from easyrec_lite.embeddings.tables import TableSpec
from easyrec_lite.embeddings.views import TableView
from easyrec_lite.features import Ids

_FILL_ROWS = 1 << 18  # rows initialised at a time: bounds the memory beside the tables themselves


class Plan(NamedTuple):
    """What a batch needs of the tables, computed ahead of the step.

    Attributes:
        distinct: per variable, `[U]` distinct rows; the first is the missing row 0.
        index: per request, positions in `distinct` of its ids: `[B, F]` for Concat, `[N]` for the others.
        splits: per Pooled or Sequence request, row_splits `[B + 1]` int64.
        step_splits: per Sequence request with several values a step, row_splits of steps over values.
        weights: per weighted Pooled request, `[N]` float32.
    """

    distinct: dict[str, tf.Tensor]
    index: dict[str, tf.Tensor]
    splits: dict[str, tf.Tensor]
    step_splits: dict[str, tf.Tensor]
    weights: dict[str, tf.Tensor]


class _Bucket:
    """The tables of one width: their place in the fused variable and the requests they serve."""

    def __init__(self, dim: int, tables: Seq[TableSpec]) -> None:
        self.dim = dim
        self.key = f"dim{dim}"
        self.tables = tuple(tables)
        self.offsets: dict[str, int] = {}
        self.rows = 1  # row 0: missing
        for table in tables:
            self.offsets[table.name] = self.rows
            self.rows += table.rows
        self.dense: list[tuple[str, int]] = []  # (feature, offset) of single-valued lookups, once each
        self.bags: list[tuple[str, str, int]] = []  # (request key, feature, offset) of multi-valued ones

    def dense_column(self, feature: str, table: str) -> int:
        lookup = (feature, self.offsets[table])
        if lookup not in self.dense:
            self.dense.append(lookup)
        return self.dense.index(lookup)


class EmbeddingCollection(tf.Module):
    """Owns every table.

    Args:
        tables: the logical tables; names are unique.
        requests: the outputs that models need, in the order in which `outputs` returns them.
        optimizer: update rule of the rows; None for inference, where a row holds weights only.
        seed: of the initial values.
        dense_decay: update all rows each step, as the textbook's Adam does.
    """

    def __init__(
        self,
        tables: Seq[TableSpec],
        requests: Seq[Request],
        optimizer: RowOptimizer | None = None,
        seed: int = 1,
        dense_decay: bool = False,
    ) -> None:
        super().__init__(name="embeddings")
        self.tables = {table.name: table for table in tables}
        self.requests = tuple(requests)
        self.optimizer = optimizer
        self._dense_decay = dense_decay
        dims = sorted({table.dim for table in tables}, reverse=True)
        self._buckets = [_Bucket(dim, [t for t in tables if t.dim == dim]) for dim in dims]
        self._bucket_of = {t.name: bucket for bucket in self._buckets for t in bucket.tables}
        self._columns: dict[str, list[int]] = {}
        for key, request in self._keyed_requests():
            if isinstance(request, Concat):
                bucket = self._bucket_of[request.tables[0]]
                pairs = zip(request.features, request.tables, strict=True)
                self._columns[key] = [bucket.dense_column(feature, table) for feature, table in pairs]
            else:
                bucket = self._bucket_of[request.table]
                bucket.bags.append((key, request.feature, bucket.offsets[request.table]))
        self.variables_by_bucket = {bucket.key: self._create(bucket, seed) for bucket in self._buckets}

    # ---- creation and views

    def _create(self, bucket: _Bucket, seed: int) -> tf.Variable:
        slots = self.optimizer.initial_slots if self.optimizer else ()
        variable = tf.Variable(
            tf.zeros([bucket.rows, bucket.dim * (1 + len(slots))]), trainable=False, name=f"fused_{bucket.key}"
        )
        for table in bucket.tables:
            table_seed = table.seed(seed)
            for start in range(0, table.rows, _FILL_ROWS):
                count = min(_FILL_ROWS, table.rows - start)
                values = table.initial((count, table.dim), table_seed + [0, start])
                packed = [values, *(tf.fill([count, table.dim], value) for value in slots)]
                begin = bucket.offsets[table.name] + start
                variable[begin : begin + count].assign(tf.concat(packed, axis=1))
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
                A negative id is missing.
            distinct: look each row up once; without it `index` holds rows of the variables themselves (serving,
                where a batch repeats little).
        """
        plan = Plan({}, {}, {}, {}, {})
        spaces: dict[tuple[object, ...], tuple[tf.Tensor, list[tf.Tensor]]] = {}
        for bucket in self._buckets:
            # Variables whose rows stand for the same ids (a feature's wide and deep tables) share one pass over them.
            space = (bucket.rows, tuple(bucket.dense), tuple(bag[1:] for bag in bucket.bags))
            if space not in spaces:
                parts = self._fused_rows(bucket, encoded)
                spaces[space] = _distinct(parts) if distinct else (tf.zeros([0], parts[0].dtype), parts)
            plan.distinct[bucket.key], parts = spaces[space]
            matrix, bags = (parts[0], parts[1:]) if bucket.dense else (None, parts)
            for (key, feature, _), index in zip(bucket.bags, bags, strict=True):
                self._plan_bag(plan, key, encoded[feature], index)
            for key, request in self._keyed_requests():
                if isinstance(request, Concat) and self._bucket_of[request.tables[0]] is bucket:
                    plan.index[key] = _columns(matrix, self._columns[key], len(bucket.dense))
        return plan

    @staticmethod
    def _fused_rows(bucket: _Bucket, encoded: Mapping[str, Ids]) -> list[tf.Tensor]:
        """Row numbers of the variable: first the single-valued matrix `[B, F]` (if any), then each bag `[N]`."""
        dtype = tf.int32 if bucket.rows < 2**31 else tf.int64
        parts = []
        if bucket.dense:
            ids = tf.stack([tf.cast(encoded[feature].ids, dtype) for feature, _ in bucket.dense], axis=1)
            offsets = tf.constant([offset for _, offset in bucket.dense], dtype)
            parts.append(tf.where(ids < 0, tf.zeros([], dtype), ids + offsets))
        for _, feature, offset in bucket.bags:
            ids = tf.cast(encoded[feature].ids.flat_values, dtype)
            parts.append(tf.where(ids < 0, tf.zeros([], dtype), ids + offset))
        return parts

    def _plan_bag(self, plan: Plan, key: str, ids: Ids, index: tf.Tensor) -> None:
        plan.index[key] = index
        plan.splits[key] = ids.ids.row_splits
        if ids.ids.ragged_rank > 1:
            plan.step_splits[key] = ids.ids.values.row_splits
        if ids.weights is not None:
            plan.weights[key] = ids.weights.flat_values

    def gather(self, plan: Plan) -> dict[str, tf.Tensor]:
        """Packed rows `[U, dim * (1 + slots)]` of each variable."""
        return {key: tf.gather(variable, plan.distinct[key]) for key, variable in self.variables_by_bucket.items()}

    def weights(self, rows: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The weights `[U, dim]` of packed rows: what the loss is differentiated by."""
        return {bucket.key: rows[bucket.key][:, : bucket.dim] for bucket in self._buckets}

    def outputs(self, weights: Mapping[str, tf.Tensor | tf.Variable], plan: Plan) -> list[tf.Tensor | SequenceOutput]:
        """One output a request: see the request types for shapes.

        Args:
            weights: as from `weights`, or the variables themselves where the plan was made with `distinct=False`.
            plan: of this batch.
        """
        result: list[tf.Tensor | SequenceOutput] = []
        for key, request in self._keyed_requests():
            index = plan.index[key]
            if isinstance(request, Concat):
                bucket = self._bucket_of[request.tables[0]]
                values = tf.gather(weights[bucket.key], index)
                result.append(tf.reshape(values, [-1, len(request.features) * bucket.dim]))
                continue
            table = weights[self._bucket_of[request.table].key]
            if isinstance(request, Pooled):
                result.append(_pool(table, index, plan.splits[key], plan.weights.get(key), request.combiner))
                continue
            steps = plan.step_splits.get(key)
            values = tf.gather(table, index) if steps is None else _pool(table, index, steps, None, request.combiner)
            result.append(SequenceOutput(values, plan.splits[key]))
        return result

    def update(
        self,
        plan: Plan,
        rows: Mapping[str, tf.Tensor],
        gradients: Mapping[str, tf.Tensor | tf.IndexedSlices | None],
        learning_rate: tf.Tensor,
        step: tf.Tensor,
    ) -> None:
        """Applies the gradients of `weights`; rows that the batch does not name stay as they are."""
        if self.optimizer is None:
            raise ValueError("This collection was built without an optimizer: it can't be updated.")
        for key, variable in self.variables_by_bucket.items():
            gradient = gradients[key]
            if gradient is None:
                continue
            gradient = tf.convert_to_tensor(gradient)  # IndexedSlices: summed by row
            if self._dense_decay:
                touched = tf.cast(plan.distinct[key], tf.int64)[1:, None]
                shape = tf.cast([variable.shape[0], gradient.shape[1]], tf.int64)
                full = tf.scatter_nd(touched, gradient[1:], shape)
                variable.assign(self.optimizer.update(variable.read_value(), full, learning_rate, step))
                continue
            updated = self.optimizer.update(rows[key][1:], gradient[1:], learning_rate, step)
            tf.raw_ops.ResourceScatterUpdate(
                resource=variable.handle, indices=plan.distinct[key][1:], updates=updated
            )

    def _keyed_requests(self) -> Iterable[tuple[str, Request]]:
        return ((str(place), request) for place, request in enumerate(self.requests))


def _distinct(parts: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Distinct rows of all parts, the missing row first, and the parts as positions among them."""
    flat = tf.concat([tf.zeros([1], parts[0].dtype), *(tf.reshape(part, [-1]) for part in parts)], axis=0)
    distinct, index = tf.unique(flat)
    sizes = [1, *(tf.size(part) for part in parts)]
    pieces = tf.split(index, tf.stack(sizes), num=len(sizes))[1:]
    return distinct, [tf.reshape(piece, tf.shape(part)) for piece, part in zip(pieces, parts, strict=True)]


def _columns(matrix: tf.Tensor, columns: list[int], count: int) -> tf.Tensor:
    """The named columns of `[B, count]`; a plain slice where they are neighbours."""
    first, last = columns[0], columns[-1] + 1
    if columns == list(range(first, last)):
        piece = matrix if last - first == count else matrix[:, first:last]
    else:
        piece = tf.gather(matrix, columns, axis=1)
    return tf.ensure_shape(piece, [None, len(columns)])


def _pool(
    table: tf.Tensor | tf.Variable, index: tf.Tensor, splits: tf.Tensor, weights: tf.Tensor | None, combiner: str
) -> tf.Tensor:
    """Combines the rows `index` `[N]` of `table` by the bags that `splits` `[B + 1]` marks: `[B, dim]`."""
    lengths = splits[1:] - splits[:-1]
    bags = tf.repeat(tf.range(tf.size(lengths), dtype=tf.int32), lengths)
    count = tf.size(lengths)
    values = tf.gather(table, index)
    if weights is not None:
        values *= weights[:, None]
    total = tf.math.unsorted_segment_sum(values, bags, count)
    if combiner == "sum":
        return total
    share = tf.ones_like(values[:, 0]) if weights is None else weights
    if combiner == "mean":
        norm = tf.math.unsorted_segment_sum(share, bags, count)
    elif combiner == "sqrtn":
        norm = tf.sqrt(tf.math.unsorted_segment_sum(tf.square(share), bags, count))
    else:
        raise ValueError(f"Unknown combiner. Received: {combiner!r}; expected sum, mean or sqrtn.")
    return tf.math.divide_no_nan(total, norm[:, None])
