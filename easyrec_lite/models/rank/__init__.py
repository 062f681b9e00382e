"""Ranking models: one score a row."""

from easyrec_lite.models.rank.deepfm import DeepFM
from easyrec_lite.models.rank.multi_tower import MultiTower

__all__ = ["DeepFM", "MultiTower"]
