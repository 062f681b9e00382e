"""Writes down the defaults that the schema cannot express, so that no later room has to know them.

In EasyRec's classic models every layer of an MLP is alike: linear, batch normalisation, activation, dropout. Its
message there had no fields for the last layer, so what is unset of them follows the other layers. A bias that batch
normalisation would subtract again is left out, which changes nothing. The towers of DSSM and the layers that score
the steps of a sequence end in a linear layer. In layers that EasyRec took from Keras (text_cnn) the last layer has no
activation unless one is named.
"""

from __future__ import annotations

from easyrec_lite.config import schema
from easyrec_lite.protos import feature_pb2, layer_pb2, pipeline_pb2

# The layers that score each step of a sequence, when seq_dnn is unset.
DEFAULT_SEQ_DNN = (128, 64, 32, 1)

_ENDS_LINEAR = {"DSSMTower.dnn", "DSSM_SENet_Tower.dnn", "DATTower.dnn", "DINTower.dnn", "SeqAttGroupConfig.seq_dnn"}


def complete(config: pipeline_pb2.EasyRecConfig) -> None:
    """Completes a canonical config in place."""
    for group in config.model_config.feature_groups:
        for sequences in group.sequence_features:
            _complete_sequences(sequences)
    for path, message in list(schema.walk(config)):
        for child_path, field, child in schema.children(message, path):
            if isinstance(child, layer_pb2.MLP):
                classic = child_path.startswith("model_config.") and ".backbone." not in child_path
                _complete_mlp(child, classic, f"{message.DESCRIPTOR.name}.{field.name}" in _ENDS_LINEAR)
    _complete_labels(config)
    if config.model_config.HasField("embedding_initializer"):
        for feature in config.features:
            if not feature.HasField("initializer"):
                feature.initializer.CopyFrom(config.model_config.embedding_initializer)


def _complete_sequences(sequences: feature_pb2.SeqAttGroupConfig) -> None:
    if not sequences.HasField("self_attention") and not sequences.seq_dnn.hidden_units:
        sequences.seq_dnn.hidden_units.extend(DEFAULT_SEQ_DNN)


def _complete_mlp(mlp: layer_pb2.MLP, classic: bool, ends_linear: bool) -> None:
    defaults: dict[str, object] = {"final_activation": "linear"}
    if classic:
        use_final_bn = mlp.use_final_bn if mlp.HasField("use_final_bn") else mlp.use_bn and not ends_linear
        defaults = {
            "final_activation": "linear" if ends_linear else mlp.activation,
            "use_final_bn": use_final_bn,
            "use_bias": not mlp.use_bn,
            "use_final_bias": not use_final_bn,
            "initializer": "glorot_uniform",
        }
    for name, value in defaults.items():
        if not mlp.HasField(name):
            setattr(mlp, name, value)


def _complete_labels(config: pipeline_pb2.EasyRecConfig) -> None:
    """Labels that are not named are taken from label_fields, in their order."""
    model, labels = config.model_config, config.data_config.label_fields
    params = getattr(model, model.WhichOneof("model") or "model_params")
    names = [field.name for field in schema.fields_of(params)]
    if "task_towers" in names and params.task_towers:
        for tower, label in zip(params.task_towers, labels, strict=False):
            if not tower.label_name:
                tower.label_name = label
    elif labels and not model.label_name:
        model.label_name = labels[0]
