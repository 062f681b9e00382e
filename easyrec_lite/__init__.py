"""easyrec_lite: recommender models from a config file, on today's TensorFlow.

In notebooks and scripts:

    import easyrec_lite as er

    config = er.load_config("deepfm.config", ["train_config.num_steps=1000"])
    experiment = er.Experiment(config)
    experiment.train()

What is named here is imported when it is first asked for: TensorFlow takes seconds to load.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from easyrec_lite.config import ConfigError
    from easyrec_lite.errors import UserError
    from easyrec_lite.experiment import Config, Experiment, compare, explain, load_config

__all__ = ["Config", "ConfigError", "Experiment", "UserError", "compare", "explain", "load_config"]

_HOMES = {
    "ConfigError": "easyrec_lite.config",
    "UserError": "easyrec_lite.errors",
    **dict.fromkeys(("Config", "Experiment", "compare", "explain", "load_config"), "easyrec_lite.experiment"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES[name]
    if home == "easyrec_lite.experiment":
        from easyrec_lite._arguments import load_tensorflow

        load_tensorflow()  # without what it says of devices that it does not find
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
