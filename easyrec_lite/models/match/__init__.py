"""Matching (recall) models: a user vector and an item vector."""

from easyrec_lite.models.match.dssm import DSSM

__all__ = ["DSSM"]
