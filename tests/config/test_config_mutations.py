"""Damaged configs: whatever is changed in a sample, the outcome is a config or a ConfigError with places."""

import random
from pathlib import Path

import pytest
from config_damage import MUTATIONS

from easyrec_lite.config import ConfigError, load_config

PER_SAMPLE = 60


def _problems(text):
    try:
        load_config("damaged.config", text=text)
    except ConfigError as error:
        return error.problems
    return []


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutations_of_all_samples(name):
    mutate, at_least = MUTATIONS[name]
    detected = total = 0
    for sample in sorted((Path(__file__).parent / "data").glob("*.config")):
        text = sample.read_text()
        for seed in range(PER_SAMPLE):
            damaged = mutate(text, random.Random(f"{name} {sample.stem} {seed}"))
            total += 1
            problems = _problems(damaged)
            detected += bool(problems)
            for problem in problems:
                assert problem.file == "damaged.config", (problem, damaged)
                assert problem.line, (problem, damaged)
                assert problem.line <= damaged.count("\n") + 1
    assert detected >= at_least * total, f"{detected} of {total}"
