"""Training: steps, the loop around them, evaluation, and what follows them."""

from easyrec_lite.training.callbacks import BestMetric, Callback, MetricsJournal, StopAtRow, TensorBoard
from easyrec_lite.training.evaluation import Evaluator
from easyrec_lite.training.loop import FitResult, Trainer, training_environment
from easyrec_lite.training.memory import keep_freed_memory
from easyrec_lite.training.observation import ObservedBatch, TrainedBatches, listening_thread
from easyrec_lite.training.schedules import Schedule
from easyrec_lite.training.state import training_tensors
from easyrec_lite.training.statistics import StatisticsRecorder
from easyrec_lite.training.step import Element, Stepper, StepsResult, Until

__all__ = [
    "BestMetric",
    "Callback",
    "Element",
    "Evaluator",
    "FitResult",
    "MetricsJournal",
    "ObservedBatch",
    "Schedule",
    "StatisticsRecorder",
    "Stepper",
    "StepsResult",
    "StopAtRow",
    "TensorBoard",
    "TrainedBatches",
    "Trainer",
    "Until",
    "keep_freed_memory",
    "listening_thread",
    "training_environment",
    "training_tensors",
]
