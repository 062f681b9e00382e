"""Multi-task models: one score a label."""

from easyrec_lite.models.multitask.dbmtl import DBMTL

__all__ = ["DBMTL"]
