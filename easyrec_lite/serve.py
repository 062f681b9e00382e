"""Serves an exported model: `python -m easyrec_lite.serve --model_dir d`."""

from __future__ import annotations

import argparse
import datetime
import gc
import re
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType

from easyrec_lite import _arguments
from easyrec_lite.terminal import main_guard

_MOST_MEGABYTES = 1024


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = _parser().parse_args(argv)
    _arguments.load_tensorflow()

    from easyrec_lite.serving.server import Limits, ModelServer, Policy, ServerOptions

    server = ModelServer(
        options.model_dir,
        ServerOptions(
            name=options.model_name,
            host=options.host,
            grpc_port=options.grpc_port,
            rest_port=options.rest_port,
            poll_seconds=options.poll_seconds,
            policy=Policy(newest=options.num_versions),
            labels=dict(options.version_label),
            limits=Limits(rows=options.max_rows, bytes=options.max_request_mb * 2**20, nan=options.allow_nan),
            running=options.max_running,
            waiting=options.max_waiting,
            connections=options.max_connections,
            drain_seconds=options.drain_seconds,
            intra_op_threads=options.tensorflow_intra_op_parallelism,
            inter_op_threads=options.tensorflow_inter_op_parallelism,
        ),
        _report,
    )
    stop = _Stop()
    # What was imported stays; without it, looking for garbage stops all threads for a fifth of a second.
    gc.collect()
    gc.freeze()
    server.start()
    _report(f"model {server.versions.name!r}: gRPC at {options.host}:{server.grpc_port}, "
            f"REST at http://{options.host}:{server.rest_port}/v1/models/{server.versions.name}")  # fmt: skip
    stop.wait()
    _report("stopping: requests that were taken are answered")
    server.stop()
    _report("stopped")
    return 0


class _Stop:
    """Waits for SIGTERM or SIGINT (Ctrl-C); a second SIGINT ends the process at once."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # Some supervisors send SIGTERM twice, so that one is no sign of impatience.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        self._asked.set()

    def wait(self) -> None:
        """Returns when a signal came."""
        self._asked.wait()


def _report(text: str) -> None:
    print(f"{datetime.datetime.now():%H:%M:%S} {text}", flush=True)


def _parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="python -m easyrec_lite.serve",
        description="Serves MODEL_DIR/<version>/ by TensorFlow Serving's gRPC and REST interfaces.",
        allow_abbrev=False,
    )
    add = result.add_argument
    add("--model_dir", required=True, metavar="DIR", help="parent of the version folders; the highest number serves")
    add("--model_name", default="", metavar="NAME", help="of the model in requests; the directory's name if left out")
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="to listen at; 0.0.0.0 for all (default: %(default)s)")
    add("--grpc_port", type=_port, default=8500, metavar="N", help="0 takes a free one (default: %(default)s)")
    add("--rest_port", type=_port, default=8501, metavar="N", help="0 takes a free one (default: %(default)s)")
    add("--poll_seconds", type=_seconds, default=1.0, metavar="S", help="between two looks for versions (%(default)s)")
    add("--num_versions", type=_arguments.positive, default=1, metavar="N", help="newest ones that serve (%(default)s)")
    add(
        "--version_label",
        type=_label,
        action="append",
        default=[],
        metavar="LABEL=N",
        help="a version's label; may be repeated",
    )
    add("--max_rows", type=_arguments.positive, default=10_000, metavar="N", help="of a request (%(default)s)")
    add("--max_request_mb", type=_megabytes, default=32, metavar="N", help="size of a request (%(default)s)")
    add("--allow_nan", action="store_true", help="hand NaN to the model; else requests with one are refused")
    add("--max_running", type=_count, default=0, metavar="N", help="requests at a time; 0: twice the cores")
    add("--max_waiting", type=_count, default=64, metavar="N", help="that wait; more are refused (%(default)s)")
    add("--max_connections", type=_arguments.positive, default=256, metavar="N", help="of REST (%(default)s)")
    add("--drain_seconds", type=_seconds, default=30.0, metavar="S", help="for open requests at a stop (%(default)s)")
    add("--tensorflow_intra_op_parallelism", type=_count, default=0, metavar="N", help="threads; 0: the cores")
    add("--tensorflow_inter_op_parallelism", type=_count, default=0, metavar="N", help="threads; 0: the cores")
    return result


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"found {text!r}; expected a whole number of at least 0")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected a port, 0 to 65535")
    return int(text)


def _megabytes(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_MEGABYTES:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected a whole number from 1 to {_MOST_MEGABYTES}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e6:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected seconds above 0")
    return seconds


def _label(text: str) -> tuple[str, int]:
    found = re.fullmatch(r"([^=/:]+)=(\d{1,18})", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected LABEL=N with the number of a version")
    return found[1], int(found[2])


if __name__ == "__main__":
    sys.exit(main())
