"""A recommender for inference with the values of a checkpoint."""

from __future__ import annotations

from easyrec_lite.checkpoints import Checkpoint
from easyrec_lite.models import Recommender, model_tensors
from easyrec_lite.protos import pipeline_pb2


def restored_recommender(config: pipeline_pb2.EasyRecConfig, checkpoint: Checkpoint) -> Recommender:
    """Builds the model of `config`, without optimizer state, and fills it from `checkpoint`.

    Raises:
        CheckpointError: names or shapes differ; the message lists all of them.
    """
    recommender = Recommender(config, training=False)
    recommender.build()
    checkpoint.restore(model_tensors(recommender), strict=False)
    return recommender
