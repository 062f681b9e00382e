"""Checkpoints: written whole or not at all, verified by checksums, restored by names.

    checkpoint = save(model_dir, step, tensors, state={"position": position}, arrays=metric_state, config=text)
    checkpoint = latest(model_dir)
    checkpoint.restore(tensors)

Needs NumPy only, so that listing and verifying are instant. `files` has the atomic writes and `Journal` the metrics
log that the rest of the project uses.
"""

from easyrec_lite.checkpoints.environment import environment, environment_changes
from easyrec_lite.checkpoints.errors import CheckpointError
from easyrec_lite.checkpoints.files import (
    Files,
    atomic_directory,
    atomic_path,
    atomic_write_bytes,
    atomic_write_json,
    atomic_write_text,
)
from easyrec_lite.checkpoints.format import NumpyTensor, Record, Tensor
from easyrec_lite.checkpoints.journal import Journal
from easyrec_lite.checkpoints.reader import Checkpoint, checkpoint_paths, find, latest, list_checkpoints
from easyrec_lite.checkpoints.warm_start import WarmStart, read_name_map, warm_start
from easyrec_lite.checkpoints.writer import clean_up, config_digest, discard_after, prune, save

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Files",
    "Journal",
    "NumpyTensor",
    "Record",
    "Tensor",
    "WarmStart",
    "atomic_directory",
    "atomic_path",
    "atomic_write_bytes",
    "atomic_write_json",
    "atomic_write_text",
    "checkpoint_paths",
    "clean_up",
    "config_digest",
    "discard_after",
    "environment",
    "environment_changes",
    "find",
    "latest",
    "list_checkpoints",
    "prune",
    "read_name_map",
    "save",
    "warm_start",
]
