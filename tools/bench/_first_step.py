"""Trains like `python -m easyrec_lite.train` to the end of the first step and says how long each part of the way took.

Started by `tools.bench.startup` with the time of the start, the config, and overrides. It prints one JSON object:
seconds by part.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any


class Marks:
    """Seconds by part, each counted from the end of the one before.

    Args:
        start: `time.time()` when the process was started.
    """

    def __init__(self, start: float) -> None:
        self._last = start
        self.seconds: dict[str, float] = {}

    def __call__(self, part: str, now: float | None = None) -> None:
        """This part is over."""
        now = time.time() if now is None else now
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._last
        self._last = now

    def around(self, owner: Any, name: str, before: str, after: str) -> None:
        """Marks `before` when the function `owner.name` is called ('' for nothing), and `after` when it is done."""
        function: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(function)
        def marked(*args: Any, **kwargs: Any) -> Any:
            if before:
                self(before)
            result = function(*args, **kwargs)
            self(after)
            return result

        setattr(owner, name, marked)


def main(started: float, config_path: str, overrides: list[str]) -> None:
    marks = Marks(started)
    marks("start Python")
    import tensorflow  # noqa: F401

    marks("import tensorflow")
    from easyrec_lite import _progress, _runs, _training  # noqa: F401 - all that the command imports
    from easyrec_lite.training import Callback, Stepper

    class FirstStep(Callback):
        def on_start(self, trainer: Any) -> None:
            marks("other set-up")

        def on_steps(self, trainer: Any, result: Any) -> None:
            marks("optimize the graph, first step")
            print(json.dumps(marks.seconds), flush=True)
            os._exit(0)

    marks("import the rest")
    config = _runs.load(config_path, [*overrides, "train_config.steps_per_call=1"])
    marks("config")
    marks.around(_training, "Recommender", "", "features, tables")
    marks.around(_training, "training_source", "", "open the rows")
    marks.around(_training, "Trainer", "other set-up", "dense variables (one trace)")
    marks.around(Stepper, "train", "input pipeline", "trace the step")
    _training.train(config, _training.TrainOptions(callbacks=[FirstStep()]))


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2], sys.argv[3:])
