"""Search for the best config: spaces, the study that processes share, and what comes of it.

space = read_space("space.config")
base = BaseConfig("base.config")
base.check(space)
"""

from easyrec_lite.tuning.choices import Choice, Value, Values, text_of
from easyrec_lite.tuning.plugins import CONSTRAINTS
from easyrec_lite.tuning.pruning import Evaluations, ReportEvaluations
from easyrec_lite.tuning.space import COSTS, TRAIN_SECONDS, BaseConfig, Objective, Space, read_space
from easyrec_lite.tuning.space_checks import metric_problems
from easyrec_lite.tuning.study import (
    ATTEMPTS,
    COSTS_FOUND,
    EDITS,
    EVALUATION,
    STD_ERROR,
    SharedStudy,
    best_trials,
    edits_of,
    is_feasible,
    reason_of,
)

__all__ = [
    "ATTEMPTS",
    "CONSTRAINTS",
    "COSTS",
    "COSTS_FOUND",
    "EDITS",
    "EVALUATION",
    "STD_ERROR",
    "TRAIN_SECONDS",
    "BaseConfig",
    "Choice",
    "Evaluations",
    "Objective",
    "ReportEvaluations",
    "SharedStudy",
    "Space",
    "Value",
    "Values",
    "best_trials",
    "edits_of",
    "is_feasible",
    "metric_problems",
    "read_space",
    "reason_of",
    "text_of",
]
