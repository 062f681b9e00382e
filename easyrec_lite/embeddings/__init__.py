"""Embedding tables: the fused collection that owns them and the sparse optimizers that update them."""

from easyrec_lite.embeddings.collection import EmbeddingCollection, Plan
from easyrec_lite.embeddings.optimizers import SPARSE_KINDS, Adagrad, Adam, RowOptimizer, build_row_optimizer
from easyrec_lite.embeddings.requests import Concat, Pooled, Request, Sequence, SequenceOutput
from easyrec_lite.embeddings.stored import StoredRows, store_rows
from easyrec_lite.embeddings.tables import TableSpec, table_initializer
from easyrec_lite.embeddings.views import TableView

__all__ = [
    "SPARSE_KINDS",
    "Adagrad",
    "Adam",
    "Concat",
    "EmbeddingCollection",
    "Plan",
    "Pooled",
    "Request",
    "RowOptimizer",
    "Sequence",
    "SequenceOutput",
    "StoredRows",
    "TableSpec",
    "TableView",
    "build_row_optimizer",
    "store_rows",
    "table_initializer",
]
