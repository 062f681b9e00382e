"""What models say of configs that don't fit them, and where."""

from __future__ import annotations

import inspect

import pytest
import tensorflow as tf
from tiny import MODELS, built, encode, load, rows

from easyrec_lite import models
from easyrec_lite.config import ConfigError
from easyrec_lite.models.rank.multi_tower import MultiTower

WORDS = 'features { feature_name: "second" input_names: "words" feature_type: SequenceFeature hash_bucket_size: 9'

CASES = {
    "missing group": ("deepfm", 'group_name: "wide"', 'group_name: "wid"', "model_config.feature_groups", "'wide'"),
    "missing user group": ("dssm", 'group_name: "user"', 'group_name: "u"', "model_config.feature_groups", "'user'"),
    "missing all group": ("dbmtl", 'group_name: "all"', 'group_name: "a"', "model_config.feature_groups", "'all'"),
    "no tower": (
        "din",
        'towers { input: "user" dnn { hidden_units: [4] } }\n'
        '    din_towers { input: "history" dnn { hidden_units: [3, 1] use_bn: false } }',
        "",
        "model_config.multi_tower.towers",
        "no tower",
    ),
    "two towers on a group": (
        "multi_tower",
        'towers { input: "item"',
        'towers { input: "user" dnn { hidden_units: [2] } } towers { input: "item"',
        "model_config.multi_tower.towers[1].input",
        "one tower a group",
    ),
    "unknown group of a tower": (
        "multi_tower",
        'towers { input: "item"',
        'towers { input: "itm"',
        "model_config.multi_tower.towers[itm].input",
        "'itm'",
    ),
    "group and history of one name": (
        "din",
        "seq_att_groups",
        'feature_groups { group_name: "history" feature_names: "gender" } seq_att_groups',
        "model_config.seq_att_groups[history]",
        "a second group named 'history'",
    ),
    "towers of unequal ends": (
        "dssm",
        "hidden_units: [4, 3]",
        "hidden_units: [4, 2]",
        "model_config.dssm.item_tower.dnn.hidden_units",
        "[3] (user) and [2] (item)",
    ),
    "tower named twice": (
        "dbmtl",
        'tower_name: "click"',
        'tower_name: "buy"',
        "model_config.dbmtl.task_towers[buy].tower_name",
        "'buy' twice",
    ),
    "unknown relation": (
        "dbmtl",
        'relation_tower_names: "click"',
        'relation_tower_names: "clik"',
        "model_config.dbmtl.task_towers[buy].relation_tower_names",
        "'clik'",
    ),
    "circle of relations": (
        "dbmtl",
        'label_name: "click" dnn { hidden_units: [4, 2] }',
        'label_name: "click" relation_tower_names: "buy" relation_dnn { hidden_units: [2] }',
        "model_config.dbmtl.task_towers",
        "circle",
    ),
    "experts without a network": (
        "dbmtl_experts",
        "expert_dnn { hidden_units: [5] }",
        "",
        "model_config.dbmtl.expert_dnn",
        "num_expert is 3",
    ),
    "wide part that is not WIDE": (
        "deepfm",
        "wide_deep: WIDE",
        "",
        "model_config.feature_groups[wide].wide_deep",
        "expected WIDE",
    ),
    "sequence in the wide part": (
        "deepfm",
        '"tags", "age_row"]',
        '"tags", "seen"]',
        "model_config.feature_groups[wide]",
        "['seen']",
    ),
    "wide width without final_dnn": (
        "deepfm",
        "l2_regularization: 0.01",
        "wide_output_dim: 2 l2_regularization: 0.01",
        "model_config.deepfm.wide_output_dim",
        "expected 1",
    ),
    "parameters of another model": (
        "deepfm",
        'model_class: "DeepFM"',
        'model_class: "MultiTower"',
        "model_config.model_class",
        "MultiTower",
    ),
    "softmax of one score": (
        "multi_tower",
        "embedding_regularization: 0.02",
        "loss_type: SOFTMAX_CROSS_ENTROPY",
        "model_config.loss_type",
        "one of CLASSIFICATION, L2_LOSS",
    ),
    "softmax of a task": (
        "dbmtl",
        'tower_name: "click" label_name: "click"',
        'tower_name: "click" label_name: "click" loss_type: SOFTMAX_CROSS_ENTROPY',
        "model_config.dbmtl.task_towers[click].loss_type",
        "SOFTMAX_CROSS_ENTROPY",
    ),
    "recall without ranks": (
        "din",
        "metrics_set { auc {} }",
        "metrics_set { auc {} } metrics_set { recall_at_topk {} }",
        "eval_config.metrics_set[1]",
        "it ranks no items",
    ),
    "recall of a task": (
        "dbmtl",
        'tower_name: "click" label_name: "click"',
        'tower_name: "click" label_name: "click" metrics_set { recall_at_topk {} }',
        "model_config.dbmtl.task_towers[click].metrics_set[0]",
        "it ranks no items",
    ),
    "a curve of one point": (
        "din",
        "metrics_set { auc {} }",
        "metrics_set { auc { num_thresholds: 1 } }",
        "eval_config.metrics_set[0].auc.num_thresholds",
        "expected at least 2",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_problems_are_named_with_their_place(case: str) -> None:
    model, old, new, path, said = CASES[case]
    text = MODELS[model]
    assert old in text
    with pytest.raises(ConfigError) as raised:
        load(text.replace(old, new, 1))
    problems = {problem.path: problem for problem in raised.value.problems}
    assert path in problems, raised.value
    assert said in str(problems[path])
    assert problems[path].file == "tiny.config"
    assert problems[path].line


def test_fm_multiplies_features_of_one_width() -> None:
    text = MODELS["deepfm"].replace("boundaries: [1, 3, 5] embedding_dim: 4", "boundaries: [1, 3, 5] embedding_dim: 5")
    with pytest.raises(ConfigError, match=r"feature_groups\[deep\]: found widths user 4, item 4, tags 4, price 5"):
        built(text)


def test_a_group_that_no_tower_reads_is_warned_of() -> None:
    text = MODELS["multi_tower"].replace(
        "multi_tower {", 'feature_groups { group_name: "more" feature_names: ["seen"] } multi_tower {', 1
    )
    warnings = {problem.path: problem for problem in load(text).warnings}
    assert "no tower reads" in warnings["model_config.feature_groups[more]"].found


MORE = 'feature_groups { group_name: "more" feature_names: ["seen"] }'
HISTORY = 'seq_att_groups { group_name: "past" seq_att_map { key: "item" hist_seq: "seen" } }'
UNREAD = {
    **{
        f"group of {model}": (model, f"{model} {{", f"{MORE} {model} {{", "feature_groups[more]", "its features")
        for model in ("dssm", "dbmtl", "deepfm")
    },
    **{
        f"history of {model}": (model, f"{model} {{", f"{HISTORY} {model} {{", "seq_att_groups[past]", "its features")
        for model in ("dssm", "dbmtl", "deepfm", "multi_tower")
    },
    "temperature": ("dssm_pointwise", "scale_simi", "temperature: 0.1 scale_simi", "dssm.temperature", "COSINE"),
    "logq": (
        "dssm_pointwise",
        "scale_simi",
        'item_id: "item" logq_correction: true scale_simi',
        "dssm.logq_correction",
        "SOFTMAX_CROSS_ENTROPY",
    ),
    "weight in the space": (
        "dbmtl",
        "weight: 2",
        "weight: 2 in_task_space_weight: 2",
        "dbmtl.task_towers[buy].in_task_space_weight",
        "task_space_indicator_label",
    ),
    "weight outside": (
        "dbmtl",
        "weight: 2",
        "weight: 2 out_task_space_weight: 0",
        "dbmtl.task_towers[buy].out_task_space_weight",
        "task_space_indicator_label",
    ),
    "loss type": ("dbmtl", "dbmtl {", "loss_type: L2_LOSS dbmtl {", "loss_type", "in each of them"),
    "label name": ("dbmtl", "dbmtl {", 'label_name: "buy" dbmtl {', "label_name", "in each of them"),
    "experts": ("dbmtl_experts", "num_expert: 3", "", "dbmtl.expert_dnn", "without num_expert"),
    "two metrics of one name": (
        "dbmtl",
        'tower_name: "click" label_name: "click"',
        'tower_name: "click" label_name: "click" metrics_set { auc {} } metrics_set { auc { num_thresholds: 50 } }',
        "dbmtl.task_towers[click].metrics_set[1]",
        "another auc",
    ),
}


@pytest.mark.parametrize("case", UNREAD)
def test_what_a_model_does_not_read_is_warned_of(case: str) -> None:
    model, old, new, path, said = UNREAD[case]
    assert old in MODELS[model]
    before = {problem.path for problem in load(MODELS[model]).warnings}
    found = [problem for problem in load(MODELS[model].replace(old, new, 1)).warnings if problem.path not in before]
    (problem,) = [problem for problem in found if problem.path == f"model_config.{path}"]
    assert said in str(problem)
    assert problem.line


def test_labels_that_cross_entropy_can_not_take() -> None:
    recommender = built(MODELS["multi_tower"])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"Label column click: found a value outside of 0 \.\. 1"):
        encode(recommender, rows(4).assign(click=[0, 1, 2, 1]))
    encode(built(MODELS["multi_tower"], "model_config.loss_type=L2_LOSS"), rows(4).assign(click=[0, 1, 2, 5]))


def test_one_dropout_ratio_is_for_all_layers() -> None:
    text = MODELS["multi_tower"].replace("hidden_units: [5, 3]", "hidden_units: [5, 3] dropout_ratio: 0.5")
    recommender = built(text)
    states = [v.path for v in recommender.dense_variables if v.path.endswith("seed_state")]
    assert states == ["model/user_dnn/dropout_0/seed_state", "model/user_dnn/dropout_1/seed_state"]


# ---- the registry


def test_names() -> None:
    assert set(models.model_names()) >= {"DBMTL", "DSSM", "DeepFM", "MultiTower", "MultiTowerDIN"}
    for name in models.model_names():
        config = load(MODELS["deepfm"]).message
        config.model_config.model_class = name
        assert name not in [problem.found for problem in models.check(config)]


def test_an_unknown_model() -> None:
    config = load(MODELS["deepfm"]).message
    config.model_config.model_class = "DepFM"
    (problem,) = models.check(config)
    assert problem.path == "model_config.model_class"
    assert problem.hint == "did you mean 'DeepFM'?"
    config.model_config.model_class = "Zzz"
    (problem,) = models.check(config)
    assert "MultiTower" in problem.hint


def test_a_name_that_is_taken() -> None:
    with pytest.raises(ValueError, match="'MultiTower' is taken by MultiTower") as raised:

        @models.register("MultiTower")
        class Another(MultiTower):
            """Not the same class."""

    assert inspect.getfile(MultiTower) in str(raised.value)
    models.register("MultiTower")(MultiTower)  # importing a module twice is no clash


def test_a_users_own_model() -> None:
    @models.register("OneScore")
    class OneScore(MultiTower):
        """A model from outside of the package."""

    config = load(MODELS["multi_tower"]).message
    config.model_config.model_class = "OneScore"
    recommender = models.Recommender(config)
    recommender.build()
    assert type(recommender.model) is OneScore
