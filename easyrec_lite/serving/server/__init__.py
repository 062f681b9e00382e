"""A server for exports that speaks TF Serving's protocols, for development and small deployments."""

from easyrec_lite.serving.failures import Status
from easyrec_lite.serving.loaded import LoadedModel
from easyrec_lite.serving.server.inputs import Limits
from easyrec_lite.serving.server.model_server import ModelServer, ServerOptions
from easyrec_lite.serving.server.model_versions import ModelVersions, Policy

__all__ = ["Limits", "LoadedModel", "ModelServer", "ModelVersions", "Policy", "ServerOptions", "Status"]
