"""Features: raw columns to ids and numbers, the same in training and in serving.

features = build_features(config)
encoded = encode_features(features, columns)
"""

from easyrec_lite.features.base import Column, Columns, Encoded, Feature, Ids, Numbers
from easyrec_lite.features.encoding import encode_features
from easyrec_lite.features.hashing import HashedIds, HashedOnce
from easyrec_lite.features.labels import Labels
from easyrec_lite.features.profile import FeatureProfile, IdProfile, LabelProfile, NumberProfile, Profile
from easyrec_lite.features.registry import FEATURE_TYPES, build_features, check
from easyrec_lite.features.statistics import Statistics, flat_parts

__all__ = [
    "FEATURE_TYPES",
    "Column",
    "Columns",
    "Encoded",
    "Feature",
    "FeatureProfile",
    "HashedIds",
    "HashedOnce",
    "IdProfile",
    "Ids",
    "LabelProfile",
    "Labels",
    "NumberProfile",
    "Numbers",
    "Profile",
    "Statistics",
    "build_features",
    "check",
    "encode_features",
    "flat_parts",
]
