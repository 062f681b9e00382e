"""Spaces as people write them: what is read, what is refused, and the configs that come of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_runs import SMALL

from easyrec_lite import features, models
from easyrec_lite.config import ConfigError
from easyrec_lite.tuning import BaseConfig, Space, Values, read_space

AUC = 'objectives { metric: "auc" }\n'
RATE = "train_config.optimizer_config[0].adam_optimizer.learning_rate.constant_learning_rate.learning_rate"
UNITS = "model_config.multi_tower.towers[all].dnn.hidden_units"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseConfig:
    path = tmp_path_factory.mktemp("base") / "base.config"
    path.write_text(SMALL)
    return BaseConfig(path, ["train_config.num_steps=7"], (features.check, models.check))


def space(text: str) -> Space:
    return read_space("s.config", text=AUC + text)


def refused(text: str, *, objectives: str = AUC) -> list[str]:
    """Every problem, as `line: path: rest`."""
    with pytest.raises(ConfigError) as error:
        read_space("s.config", text=objectives + text)
    assert all(problem.file == "s.config" for problem in error.value.problems)
    return [
        f"{problem.line}: {problem}".replace(f"s.config:{problem.line}:{problem.column}: ", "")
        for problem in error.value.problems
    ]


def chosen(base: BaseConfig, text: str, **values: object) -> list[str]:
    return base.edits(space(text), values)  # type: ignore[arg-type]


def test_each_kind_becomes_an_override(base: BaseConfig) -> None:
    text = f"""
    parameters {{ name: "rate" path: "{RATE}" float_range {{ low: 1e-5 high: 1 log: true }} }}
    parameters {{ path: "features[*].embedding_dim" int_range {{ low: 2 high: 9 step: 3 }} }}
    parameters {{ name: "units" path: "{UNITS}" values: ["[8, 4]", "[4]"] }}
    """
    read = space(text)
    base.check(read)
    assert [choice.name for choice in read.choices] == ["rate", "features[*].embedding_dim", "units"]
    rate, dim, units = (choice.distribution for choice in read.choices)
    assert (rate.low, rate.high, rate.log) == (1e-5, 1, True)  # type: ignore[attr-defined]
    assert (dim.low, dim.high, dim.step) == (2, 8, 3)  # type: ignore[attr-defined]
    assert units.choices == ("[8, 4]", "[4]")  # type: ignore[attr-defined]
    values: Values = {"rate": 1e-05, "features[*].embedding_dim": 5, "units": "[8, 4]"}
    edits = base.edits(read, values)
    assert edits == [f"{RATE}=1e-05", "features[*].embedding_dim=5", f"{UNITS}=[8, 4]"]
    message = base.load(edits).message
    assert {feature.embedding_dim for feature in message.features} == {5}
    assert list(message.model_config.multi_tower.towers[0].dnn.hidden_units) == [8, 4]
    assert message.train_config.num_steps == 7


def test_several_paths_share_a_choice_and_filters_select(base: BaseConfig) -> None:
    text = (
        'parameters { name: "d" path: "features[feature_type=TagFeature].embedding_dim"'
        ' path: "features[0:2].embedding_dim" int_range { low: 6 high: 7 } }'
    )
    message = base.load(chosen(base, text, d=6)).message
    changed = [feature.feature_name for feature in message.features if feature.embedding_dim == 6]
    assert changed == ["user", "gender", "tags"]


def test_alternatives_replace_the_model_or_change_several_fields(base: BaseConfig) -> None:
    text = """
    parameters { name: "model"
      alternatives { name: "tower" }
      alternatives { name: "fm" model_config {
        model_class: "DeepFM"
        feature_groups { group_name: "wide" feature_names: ["user", "tags"] wide_deep: WIDE }
        feature_groups { group_name: "deep" feature_names: ["user", "tags"] }
        deepfm { dnn { hidden_units: [5] } } } }
      alternatives { name: "long" edit: "train_config.num_steps=99" edit: "data_config.batch_size=8" leave_out: "age" }
    }
    parameters { path: "model_config.deepfm.dnn.hidden_units[0]" int_range { low: 3 high: 7 }
      when { parameter: "model" one_of: "fm" } }
    """
    base.check(space(text))
    assert base.load(chosen(base, text, model="tower")).message == base.config.message
    values = {"model": "fm", "model_config.deepfm.dnn.hidden_units[0]": 6}
    message = base.load(base.edits(space(text), values)).message
    assert message.model_config.model_class == "DeepFM"
    assert list(message.model_config.deepfm.dnn.hidden_units) == [6]
    message = base.load(chosen(base, text, model="long")).message
    assert (message.train_config.num_steps, message.data_config.batch_size) == (99, 8)
    assert list(message.model_config.feature_groups[0].feature_names) == ["user", "tags"]


def test_features_come_and_go(base: BaseConfig) -> None:
    text = """
    optional_features: ["tags", "age"]
    candidate_features { feature { feature_name: "user_x_gender" input_names: ["user", "gender"]
      feature_type: ComboFeature hash_bucket_size: 20 embedding_dim: 4 } groups: "all" }
    parameters { name: "width" path: "features[user_x_gender].embedding_dim" int_range { low: 2 high: 3 }
      when { parameter: "use.user_x_gender" one_of: "true" } }
    parameters { path: "features[*].hash_bucket_size" int_range { low: 50 high: 60 } }
    """
    read = space(text)
    base.check(read)
    assert [choice.name for choice in read.choices].index("use.user_x_gender") < 3  # before what depends on it
    values: Values = {
        "use.tags": False, "use.age": True, "use.user_x_gender": True, "width": 3, "features[*].hash_bucket_size": 55,
    }  # fmt: skip
    edits = base.edits(read, values)
    assert len({edit.partition("=")[0] for edit in edits}) == len(edits)
    message = base.load(edits).message
    assert list(message.model_config.feature_groups[0].feature_names) == ["user", "age", "user_x_gender"]
    cross = next(feature for feature in message.features if feature.feature_name == "user_x_gender")
    assert (cross.embedding_dim, cross.hash_bucket_size) == (3, 55)
    out = base.edits(read, {"use.tags": True, "use.age": True, "use.user_x_gender": False})
    assert out == []


def test_all_problems_are_told_at_once_with_their_lines() -> None:
    text = """parameters { name: "a" pth: "x" int_range { low: 1 high: 2 } }
parameters { name: "b" path: "x[" int_range { low: 3 high: 1 } }
parameters { name: "c" path: "x" float_range { low: 0 high: 1 log: true step: 0.5 } }
parameters { name: "d" path: "x" values: ["1", "1"] }
parameters { name: "e" path: "x" values: "1" int_range { low: 1 high: 2 } }
parameters { name: "f" path: "x" }
parameters { name: "g" alternatives { edit: "x=1" } }
parameters { name: "h" path: "x" int_range { low: one high: 2 } }
seeds_per_trial: 0
limits { parameters: -1 }
sampler { name: "TPSampler" }
pruner { name: "MedianPruner" args { n_startup_trial: 3 } }
"""
    found = refused(text, objectives="")
    assert [line.partition(":")[0] for line in found] == [
        "1",
        "1",
        "1",
        "2",
        "3",
        "3",
        "4",
        "5",
        "6",
        "7",
        "8",
        "9",
        "10",
        "11",
        "12",
    ]
    joined = "\n".join(found)
    for part in (
        "did you mean 'path'?",
        "no path in a",
        "objectives: found nothing",
        "'[' that is not closed",
        "found step and log",
        "found 0.0, expected a number above 0, for log",
        "'1' twice",
        "int_range and values in e",
        "nothing to choose from in f",
        "alternatives[0].name: found nothing",
        "found one, expected a whole number",
        "seeds_per_trial: found 0",
        "limits.parameters: found -1.0",
        "did you mean 'TPESampler'?",
        "did you mean 'n_startup_trials'?",
    ):
        assert part in joined, part


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('parameters { name: "a" path: "x" values: "1" when { parameter: "b" one_of: "1" } }', "name of another"),
        ('parameters { name: "a" path: "x" values: "1" when { parameter: "a" one_of: "1" } }', "name of another"),
        (
            'parameters { name: "a" path: "x" values: ["on", "off"] }'
            ' parameters { name: "b" path: "y" values: "1" when { parameter: "a" one_of: "of" } }',
            "did you mean 'off'?",
        ),
        (
            'parameters { name: "a" path: "x" values: ["on", "off"] }'
            ' parameters { name: "b" path: "y" values: "1" when { parameter: "a" at_least: 2 } }',
            "found a bound of a, expected one_of",
        ),
        (
            'parameters { name: "a" path: "x" values: "1" when { parameter: "b" one_of: "1" } }'
            ' parameters { name: "b" path: "y" values: "1" when { parameter: "a" one_of: "1" } }',
            "conditions in a circle: a, b",
        ),
        ('parameters { name: "a" path: "x" values: "1" when { parameter: "a" } }', "one_of, at_least or at_most"),
        ('optional_features: ["u", "u"]', "two choices named 'use.u'"),
        ('candidate_features { feature { input_names: "u" } }', "the groups that the feature joins"),
        ("", "no choices"),
        ('parameters { name: "a" path: "x" values: "1" } objectives { metric: "auc" }', "auc twice"),
        ('optional_features: "u" objectives { metric: "loss" } pruner { name: "HyperbandPruner" }', "no pruner"),
        ('optional_features: "u" pruner { name: "PatientPruner" args { patience: 2 } }', "no wrapped_pruner"),
    ],
)  # fmt: skip
def test_what_can_not_be_a_space(text: str, expected: str) -> None:
    assert expected in "\n".join(refused(text))


def _check_error(base: BaseConfig, text: str) -> ConfigError:
    with pytest.raises(ConfigError) as error:
        base.check(space(text))
    return error.value


def test_choices_that_do_not_fit_the_config_are_told_where_they_are_written(base: BaseConfig) -> None:
    text = f"""parameters {{ name: "a" path: "train_config.num_stepz" int_range {{ low: 1 high: 2 }} }}
parameters {{ name: "b" path: "{UNITS}"
  values: "[4]" values: "[four]" }}
parameters {{ name: "c" path: "data_config.batch_size" float_range {{ low: 1.5 high: 2 }} }}
optional_features: "agee"
optional_features: "gender"
candidate_features {{ feature {{ feature_name: "x" input_names: "age" }} groups: "al" }}
parameters {{ name: "d" alternatives {{ name: "e" edit: "nonsense" }} }}
"""
    problems = _check_error(base, text).problems
    assert [(problem.line, problem.path) for problem in problems] == [
        (2, "parameters[0].path[0]"),
        (4, "parameters[1].values[1]"),
        (5, "parameters[2].float_range.low"),
        (6, "optional_features[0]"),
        (7, "optional_features[1]"),
        (8, "candidate_features[0].groups"),
        (9, "parameters[3].alternatives[0]"),
    ]
    assert "did you mean 'num_steps'?" in problems[0].hint
    assert "did you mean 'age'?" in problems[3].hint
    assert "did you mean 'all'?" in problems[5].hint


def test_conditions_hold_of_numbers_names_and_what_was_not_chosen(base: BaseConfig) -> None:
    text = """parameters { name: "layers" path: "data_config.batch_size" int_range { low: 1 high: 3 } }
    parameters { name: "third" path: "train_config.num_steps" values: "5" when { parameter: "layers" at_least: 3 } }
    parameters { name: "after" path: "train_config.seed" values: "5" when { parameter: "third" one_of: "5" } }
    """
    third, after = space(text).choices[1:]
    assert third.when[0].holds({"layers": 3})
    assert not third.when[0].holds({"layers": 2})
    assert after.when[0].holds({"third": "5"})
    assert not after.when[0].holds({"layers": 3})


def test_a_default_that_follows_another_field_still_does(tmp_path: Path) -> None:
    """use_final_bn follows use_bn where it is not written, in trials as well."""
    path = tmp_path / "base.config"
    path.write_text(SMALL)
    base = BaseConfig(path, checks=(features.check, models.check))
    text = 'parameters { name: "bn" path: "model_config.multi_tower.towers[all].dnn.use_bn" values: ["true", "false"] }'
    for value in ("true", "false"):
        dnn = base.load(chosen(base, text, bn=value)).message.model_config.multi_tower.towers[0].dnn
        assert dnn.use_final_bn == (value == "true")


def test_a_missing_file_is_told() -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_space("/nowhere/space.config")
