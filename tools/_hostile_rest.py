"""Requests by REST that a server must survive, with the statuses that are right for each."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from tools._hostile_kinds import MILLION, Kind, Kinds, input_name, word
from tools._serving_probe import Outcome, Probe, to_json

_kinds = Kinds()


@_kinds.add("rest: nothing wrong", "OK")
def _rest_right(probe: Probe, rng: np.random.Generator) -> Outcome:
    return probe.post(probe.body(rng))


@_kinds.add("rest: random bytes", "400")
def _rest_random(probe: Probe, rng: np.random.Generator) -> Outcome:
    return probe.post(b"{" + rng.bytes(int(rng.integers(0, 2000))))


@_kinds.add("rest: cut JSON", "400")
def _rest_cut(probe: Probe, rng: np.random.Generator) -> Outcome:
    content = json.dumps(probe.body(rng)).encode()
    return probe.post(content[: int(rng.integers(0, len(content)))])


@_kinds.add("rest: JSON that is no request", "400")
def _rest_other(probe: Probe, rng: np.random.Generator) -> Outcome:
    body = probe.body(rng)
    others: list[Any] = [
        [], 7, None, "text", {}, {"instances": []}, {"instances": {}}, {"instances": [[]]}, {"inputs": 3},
        {"inputs": {}},
        {"instances": [{}]}, {"instances": [1], **body}, {"signature_name": 7, **body}, {"signature_name": "x", **body},
        {"instances": [{"b64": "AA=="}]}, {"instances": [body, None]},
    ]  # fmt: skip
    return probe.post(others[int(rng.integers(0, len(others)))])


@_kinds.add("rest: nested deeply", "400")
def _rest_nested(probe: Probe, rng: np.random.Generator) -> Outcome:
    depth = int(rng.choice([50, 1000, 100_000]))
    return probe.post(b'{"instances": ' + b"[" * depth + b"]" * depth + b"}")


@_kinds.add("rest: wrong value", "400")
def _rest_value(probe: Probe, rng: np.random.Generator) -> Outcome:
    body, name = probe.body(rng), input_name(probe, rng)
    wrong = [
        None,
        {},
        {"b64": "???"},
        {"b64": 3},
        [],
        [[[1]]],
        [[1], [1, 2]],
        [[], [], [1]],
        True,
        10**30,
        [1, "a", None],
    ]
    body["inputs"][name] = wrong[int(rng.integers(0, len(wrong)))]
    return probe.post(body)


@_kinds.add("rest: missing or unknown input", "400")
def _rest_names(probe: Probe, rng: np.random.Generator) -> Outcome:
    body = probe.body(rng)
    if rng.random() < 0.5:
        del body["inputs"][input_name(probe, rng)]
    else:
        body["inputs"][word(rng)] = [1]
    return probe.post(body)


@_kinds.add("rest: rows with other inputs", "400")
def _rest_rows(probe: Probe, rng: np.random.Generator) -> Outcome:
    columns = probe.body(rng)["inputs"]
    rows = [{name: values[place] for name, values in columns.items()} for place in range(3)]
    del rows[int(rng.integers(0, 3))][input_name(probe, rng)]
    return probe.post({"instances": rows})


@_kinds.add("rest: NaN", "400")
def _rest_nan(probe: Probe, rng: np.random.Generator) -> Outcome:
    arrays = probe.arrays(rng)
    name = str(rng.choice([name for name, array in arrays.items() if array.dtype.kind == "f"]))
    arrays[name][...] = math.nan
    return probe.post({"inputs": {name: to_json(array) for name, array in arrays.items()}})


@_kinds.add("rest: a million items", "400", "413")
def _rest_million(probe: Probe, rng: np.random.Generator) -> Outcome:
    body, name = probe.body(rng), input_name(probe, rng)
    value = json.dumps(body["inputs"].pop(name)[0])
    others = json.dumps(body["inputs"])[1:-1]
    rows = MILLION if rng.random() < 0.1 else 20_000  # the same for the server, and sooner sent
    return probe.post(f'{{"inputs": {{{others}, "{name}": [{", ".join([value] * rows)}]}}}}'.encode())


@_kinds.add("rest: huge text or number", "400", "OK")
def _rest_huge(probe: Probe, rng: np.random.Generator) -> Outcome:
    body, name = probe.body(rng), input_name(probe, rng)
    content = json.dumps(body | {"inputs": body["inputs"] | {name: "@"}}).encode()
    value = b'["%b"]' % (b"1|" * 500_000) if rng.random() < 0.5 else b"[%b]" % (b"9" * 10_000)
    return probe.post(content.replace(b'"@"', value))


@_kinds.add("rest: unknown model, version or path", "404", "400")
def _rest_path(probe: Probe, rng: np.random.Generator) -> Outcome:
    paths = [
        f"/v1/models/{word(rng)}:predict",
        f"{probe.path}/versions/{rng.integers(0, 2**62)}:predict",
        f"{probe.path}/versions/99999999999999999999:predict",
        f"{probe.path}/labels/{word(rng)}:predict",
        f"/{word(rng)}",
        "/v1/models/%ff%00:predict",
        "/v1/models/" + "a" * 5000 + ":predict",
        f"{probe.path}/versions/-1:predict",
    ]
    return probe.post(probe.body(rng), paths[int(rng.integers(0, len(paths)))])


@_kinds.add("rest: another method", "405", "501")
def _rest_method(probe: Probe, rng: np.random.Generator) -> Outcome:
    method = str(rng.choice(["PUT", "DELETE", "PATCH", "OPTIONS", "GET", "BREW"]))
    return probe.post(b"", method=method)


@_kinds.add("rest: broken HTTP", "400", "408", "411", "413", "414", "415", "431", "501", "505")
def _rest_http(probe: Probe, rng: np.random.Generator) -> Outcome:
    line = f"POST {probe.path}:predict HTTP/1.1\r\nHost: x\r\n".encode()
    contents = [
        line + b"\r\n{}",
        line + b"Content-Length: -5\r\n\r\n{}",
        line + b"Content-Length: 1e3\r\n\r\n{}",
        line + b"Content-Length: 100\r\n\r\n{}",
        line + b"Content-Length: 99999999999\r\n\r\n{}",
        line + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        line + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        line + b"X: " + b"a" * 70_000 + b"\r\n\r\n",
        line + b"".join(b"X-%d: a\r\n" % number for number in range(300)) + b"\r\n",
        b"POST /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"POST / HTTP/9.9\r\n\r\n",
        b"POST / HTTX/1.1\r\n\r\n",
        b"one two three four five\r\n\r\n",
        b"\x16\x03\x01" + rng.bytes(20).replace(b"\n", b" ") + b"\r\n\r\n",
    ]
    return probe.raw(contents[int(rng.integers(0, len(contents)))])


REST_KINDS: tuple[Kind, ...] = tuple(_kinds)
