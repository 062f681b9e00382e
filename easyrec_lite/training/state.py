"""All that a training run is made of, as named tensors for checkpoints."""

from __future__ import annotations

from easyrec_lite.checkpoints import Tensor
from easyrec_lite.models import VariableView, model_tensors
from easyrec_lite.training.step import Stepper


def training_tensors(stepper: Stepper) -> list[Tensor]:
    """Everything that the next step depends on: the model, the optimizers' state and the step."""
    recommender = stepper.recommender
    slots = [view for view in recommender.collection.views() if not view.name.endswith("/weights")]
    optimizer = [VariableView(f"optimizer/{variable.path}", variable) for variable in stepper.optimizer.variables]
    return [
        *model_tensors(recommender),
        *slots,
        *optimizer,
        VariableView("training/step", stepper.step),
    ]
