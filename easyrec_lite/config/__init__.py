"""Configs: read, overridden, brought into one canonical form, completed and checked.

config = load_config("deepfm.config", ["train_config.num_steps=100"])
config.message.features[0].embedding_dim
"""

from easyrec_lite.config.expressions import (
    FUNCTIONS,
    OPERATORS,
    Call,
    Expression,
    ExpressionError,
    Number,
    Variable,
    evaluate,
    parse_expression,
)
from easyrec_lite.config.loading import Check, PipelineConfig, load_config, read_config, stored_config
from easyrec_lite.config.overrides import apply_overrides
from easyrec_lite.config.paths import Path, parse_path
from easyrec_lite.config.problems import (
    ERROR,
    WARNING,
    ConfigError,
    Location,
    Problem,
    Severity,
    did_you_mean,
    no_effect,
    one_of,
    quote,
)
from easyrec_lite.config.reference_checks import known_columns, metric_names
from easyrec_lite.config.schema import effective_name, format_key, item_paths, walk
from easyrec_lite.config.secrets import is_reference, redact, resolve_secret
from easyrec_lite.config.targets import AnyTarget, StructTarget, Target, find
from easyrec_lite.config.writing import ChangedField, changed_fields, digest, to_text

__all__ = [
    "ERROR",
    "FUNCTIONS",
    "OPERATORS",
    "WARNING",
    "AnyTarget",
    "Call",
    "ChangedField",
    "Check",
    "ConfigError",
    "Expression",
    "ExpressionError",
    "Location",
    "Number",
    "Path",
    "PipelineConfig",
    "Problem",
    "Severity",
    "StructTarget",
    "Target",
    "Variable",
    "apply_overrides",
    "changed_fields",
    "did_you_mean",
    "digest",
    "effective_name",
    "evaluate",
    "find",
    "format_key",
    "is_reference",
    "item_paths",
    "known_columns",
    "load_config",
    "metric_names",
    "no_effect",
    "one_of",
    "parse_expression",
    "parse_path",
    "quote",
    "read_config",
    "redact",
    "resolve_secret",
    "stored_config",
    "to_text",
    "walk",
]
