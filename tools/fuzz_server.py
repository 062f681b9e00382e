"""Sends hostile requests to a server of one model, by gRPC and by REST, and checks that each gets the right status.

    python -m easyrec_lite.serve --model_dir runs/quickstart/export --model_name m &
    python -m tools.fuzz_server --model_name m --count 10000 --seed 1

Every request is a function of the seed and its number. In between, a request that is right must get the same answer as
at the start. The model's signature is asked from the server, so any model will do.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import sys
from collections.abc import Sequence

from easyrec_lite.errors import UserError
from easyrec_lite.terminal import main_guard, table
from tools._hostile_grpc import GRPC_KINDS
from tools._hostile_kinds import Kind
from tools._hostile_rest import REST_KINDS
from tools._serving_probe import Outcome, Probe

KINDS = (*GRPC_KINDS, *REST_KINDS)

_CHECKED_EVERY = 50


@dataclasses.dataclass(frozen=True)
class Finding:
    """A request that was answered wrongly.

    Attributes:
        number: of the request.
        kind: what was wrong with it.
        outcome: what came.
        expected: statuses that would have been right.
    """

    number: int
    kind: str
    outcome: Outcome
    expected: frozenset[str]


@dataclasses.dataclass
class Report:
    """What came of a run.

    Attributes:
        counts: requests by kind and status.
        findings: those answered wrongly.
    """

    counts: collections.Counter[tuple[str, str]] = dataclasses.field(default_factory=collections.Counter)
    findings: list[Finding] = dataclasses.field(default_factory=list)


def fuzz(probe: Probe, count: int, seed: int, kinds: Sequence[Kind] = KINDS) -> Report:
    """Sends `count` requests of the kinds in turn.

    Args:
        probe: knows the server and its model.
        count: how many.
        seed: with a request's number it says what is sent.
        kinds: of requests.

    Raises:
        UserError: the server does not answer requests that are right.
    """
    before = probe.answer()
    if before.status != "OK":
        raise UserError(f"A request that is right got {before.status} ({before.message}); is a version served?")
    report = Report()
    for number in range(count):
        kind = kinds[number % len(kinds)]
        outcome = kind.send(probe, probe.generator(seed, number))
        report.counts[kind.name, outcome.status] += 1
        if outcome.status not in kind.expected or not (outcome.message or outcome.status == "OK"):
            report.findings.append(Finding(number, kind.name, outcome, kind.expected))
        if (number + 1) % _CHECKED_EVERY == 0 and probe.answer() != before:
            report.findings.append(Finding(number, "a right request afterwards", probe.answer(), frozenset({"OK"})))
    return report


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 1 if a request was answered wrongly."""
    arguments = argparse.ArgumentParser(
        prog="python -m tools.fuzz_server", description="Sends hostile requests to a server."
    )
    arguments.add_argument("--model_name", required=True, metavar="NAME")
    arguments.add_argument("--host", default="127.0.0.1", metavar="ADDRESS")
    arguments.add_argument("--grpc_port", type=int, default=8500, metavar="N")
    arguments.add_argument("--rest_port", type=int, default=8501, metavar="N")
    arguments.add_argument("--count", type=int, default=1000, metavar="N", help="requests (%(default)s)")
    arguments.add_argument("--seed", type=int, default=1, metavar="N")
    options = arguments.parse_args(argv)
    with Probe(options.host, options.grpc_port, options.rest_port, options.model_name) as probe:
        report = fuzz(probe, options.count, options.seed)
    rows = [(kind, status, number) for (kind, status), number in sorted(report.counts.items())]
    table(f"{options.count:,} hostile requests, seed {options.seed}", ("request", "status", "count"), rows)
    for finding in report.findings[:20]:
        print(json.dumps(dataclasses.asdict(finding), default=sorted))
    print(f"answered wrongly: {len(report.findings)}")
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
