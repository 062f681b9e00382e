"""The path grammar: what paths lead to, setting it, overrides, and the place of a field."""

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from easyrec_lite.config import (
    ConfigError,
    apply_overrides,
    find,
    format_key,
    item_paths,
    load_config,
    parse_path,
)
from easyrec_lite.protos import pipeline_pb2

_TEXT = """
model_dir: "m"
train_config {
  optimizer_config { adam_optimizer { learning_rate { constant_learning_rate { learning_rate: 0.5 } } } }
  num_steps: 10
}
eval_config { metrics_set { auc {} } metrics_set { gauc { uid_field: "a" } } }
features { feature_name: "a" input_names: "a" embedding_dim: 4 hash_bucket_size: 10 }
features { feature_name: "b" input_names: ["b1", "b2"] embedding_dim: 8 hash_bucket_size: 20 feature_type: TagFeature }
features { feature_name: "c [x]" input_names: "c" embedding_dim: 16 feature_type: RawFeature boundaries: [1, 2, 3] }
model_config {
  feature_groups { group_name: "deep" feature_names: ["a", "b"] }
  feature_groups { group_name: "wide" feature_names: "a" wide_deep: WIDE }
  model_params { params { units: [64, 32] inner { rate: 0.5 } } }
}
"""


def _config():
    return text_format.Parse(_TEXT.replace("params { units: [64, 32] inner { rate: 0.5 } }", "")
                             , pipeline_pb2.EasyRecConfig())  # fmt: skip


@pytest.fixture
def config():
    return _config()


def _paths(config, path):
    return [target.path for target in find(config, path)]


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("model_dir", ["m"]),
        ("features[a].embedding_dim", [4]),
        ("features[0].embedding_dim", [4]),
        ("features[-1].embedding_dim", [16]),
        ("features[*].embedding_dim", [4, 8, 16]),
        ("features[:].embedding_dim", [4, 8, 16]),
        ("features[1:3].embedding_dim", [8, 16]),
        ("features[:1].embedding_dim", [4]),
        ('features["c [x]"].embedding_dim', [16]),
        ("features[feature_name=b].embedding_dim", [8]),
        ("features[embedding_dim>=8].embedding_dim", [8, 16]),
        ("features[embedding_dim!=8].embedding_dim", [4, 16]),
        ("features[embedding_dim < 5].embedding_dim", [4]),
        ("features[feature_type=RawFeature].embedding_dim", [16]),
        ("features[feature_type==IdFeature].embedding_dim", [4]),
        ("features[input_names[0]=b1].embedding_dim", [8]),
        ("features[input_names=b2].embedding_dim", [8]),
        ("features[embedding_dim>99].embedding_dim", []),
        ("features[b].input_names", [["b1", "b2"]]),
        ("features[b].input_names[1]", ["b2"]),
        ("features[b].input_names[b1]", ["b1"]),
        ("feature_configs[a].embedding_dim", [4]),
        ("feature_config.features[feature_name=a].embedding_dim", [4]),
        ("eval_config.metrics_set[gauc].gauc.uid_field", ["a"]),
        ("model_config.feature_groups[wide].feature_names[0]", ["a"]),
        ("model_config.feature_groups[wide_deep=WIDE].group_name", ["wide"]),
        ("train_config.optimizer_config[0].adam_optimizer.learning_rate.constant_learning_rate.learning_rate", [0.5]),
        ("train_config.seed", [1]),
        ("export_config.exporter_type", ["final"]),
    ],
)
def test_find(config, path, values):
    assert [target.get() for target in find(config, path)] == values


def test_found_paths_are_canonical_and_lead_back(config):
    assert _paths(config, "features[*].embedding_dim") == [
        "features[a].embedding_dim",
        "features[b].embedding_dim",
        'features["c [x]"].embedding_dim',
    ]
    for path in _paths(config, "features[*].boundaries[*]"):
        (target,) = find(config, path)
        assert target.path == path


@pytest.mark.parametrize(
    ("path", "found", "hint"),
    [
        ("", "the end of the path", ""),
        ("model_dri", "the unknown field 'model_dri'", "did you mean 'model_dir'?"),
        ("features[a].embeding_dim", "the unknown field 'embeding_dim'", "did you mean 'embedding_dim'?"),
        ("features[aa].embedding_dim", "no FeatureConfig named 'aa'", "did you mean 'a'?"),
        ("features[7]", "features[7]", "it has 3 items"),
        ("features.embedding_dim", "the list features as a whole", ""),
        ("features[a", "a '[' that is not closed", ""),
        ("features[]", "'[]'", ""),
        ("features[a]x", "'x'", ""),
        ("model_dir.x", "model_dir with '.x' after it", ""),
        ("model_dir[0]", "model_dir in brackets", ""),
        ("features[a][0]", "features with two pairs of brackets", ""),
        ("features[a].", "the end of the path", ""),
        ("features[a].input_names[x=1]", "a filter", ""),
    ],
)
def test_wrong_paths(config, path, found, hint):
    with pytest.raises(ConfigError) as caught:
        find(config, path)
    (problem,) = caught.value.problems
    assert (problem.found, problem.hint) == (found, hint)


_PIECES = [
    "features", "model_dir", "eval_config", "metrics_set", "embedding_dim", "boundaries", "input_names",
    ".", "[", "]", "a", "c [x]", '"', "*", ":", "-1", "0", "1", ">=", "=", " ",
]  # fmt: skip
_scraps = st.lists(st.sampled_from(_PIECES), max_size=10).map("".join)


@given(st.text(max_size=30) | _scraps)
def test_any_text_leads_back_to_what_it_leads_to_or_is_refused(text):
    config = _config()
    try:
        targets = find(config, text)
    except ConfigError as refusal:
        (problem,) = refusal.problems
        assert "" not in (problem.found, problem.expected)
    else:
        assert [_paths(config, target.path) for target in targets] == [[target.path] for target in targets]


@given(st.text(min_size=1, max_size=12).filter(lambda text: text.isprintable()))
def test_a_key_finds_its_name(name):
    config = pipeline_pb2.EasyRecConfig()
    config.features.add(feature_name="x")
    config.features.add(feature_name=name, embedding_dim=7)
    if name != "x":
        assert [target.get() for target in find(config, f"features[{format_key(name)}].embedding_dim")] == [7]


def test_set_by_target(config):
    for target in find(config, "features[*].embedding_dim"):
        target.set(target.get() * 2)
    assert [feature.embedding_dim for feature in config.features] == [8, 16, 32]
    (whole,) = find(config, "features[b].input_names")
    whole.set(["z"])
    assert list(config.features[1].input_names) == ["z"]
    (block,) = find(config, "features[a]")
    block.set(config.features[1])
    assert config.features[0].feature_name == "b"


def test_struct_paths():
    config = pipeline_pb2.EasyRecConfig()
    apply_overrides(config, ['model_config.model_params.params={"units": [64, 32], "inner": {"rate": 0.5}}'])
    base = "model_config.model_params.params"
    assert [target.get() for target in find(config, f"{base}.units[1]")] == [32]
    apply_overrides(config, [f"{base}.units[1]=16", f"{base}.inner.rate=0.25", f"{base}.inner.new=text"])
    (target,) = find(config, f"{base}.inner")
    assert target.get() == {"rate": 0.25, "new": "text"}
    with pytest.raises(ConfigError):
        apply_overrides(config, [f"{base}.units[9]=1"])


def test_unnamed_and_equal_items_go_by_index(config):
    config.features.add(feature_name="a")
    assert item_paths("features", config.features) == ["features[0]", "features[b]", 'features["c [x]"]', "features[3]"]


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("train_config.num_steps=20", "train_config.num_steps", 20),
        ("model_dir=a/b=c", "model_dir", "a/b=c"),
        ('model_dir="quoted"', "model_dir", "quoted"),
        ("model_dir=", "model_dir", ""),
        ("data_config.shuffle=false", "data_config.shuffle", False),
        ("data_config.input_type=ParquetInput", "data_config.input_type", 19),
        ("features[a].boundaries=[1, 2.5]", "features[a].boundaries", [1, 2.5]),
        ("features[c].boundaries=4", "features[c].boundaries", [4]),
        ("features[c].boundaries[1]=4", "features[c].boundaries[1]", 4),
        ("features[b].input_names=[x, \"y\"]", "features[b].input_names", ["x", "y"]),
        ("features[feature_name=a].hash_bucket_size=7", "features[a].hash_bucket_size", 7),
        ("export_config.exporter_type=none", "export_config.exporter_type", "none"),
    ],
)  # fmt: skip
def test_overrides_of_scalars(config, override, path, value):
    config.features[2].feature_name = "c"
    apply_overrides(config, [override])
    assert [target.get() for target in find(config, path)] == [value]


def test_overrides_of_blocks(config):
    apply_overrides(
        config,
        [
            "train_config.optimizer_config[0]={ adagrad_optimizer { initial_accumulator_value: 0.5 } }",
            "eval_config.metrics_set=[{ logloss {} }, { max_f1 {} }]",
            "model_config.multi_tower={ l2_regularization: 0.25 }",
            "features[*].embedding_dim=3",
        ],
    )
    assert config.train_config.optimizer_config[0].adagrad_optimizer.initial_accumulator_value == 0.5
    assert [metric.WhichOneof("metric") for metric in config.eval_config.metrics_set] == ["logloss", "max_f1"]
    assert config.model_config.WhichOneof("model") == "multi_tower"
    assert {feature.embedding_dim for feature in config.features} == {3}


def test_easyrec_edit_config_json(config):
    apply_overrides(
        config,
        {
            "train_config.num_steps": 7,
            "model_dir": "n",
            "feature_config.features[:].embedding_dim": 5,
            "features[0].hash_bucket_size;features[1].hash_bucket_size": 9,
            "features[2].boundaries": [1, 2],
            "eval_config": {"metrics_set": [{"auc": {}}]},
        },
    )
    assert config.train_config.num_steps == 7
    assert config.model_dir == "n"
    assert [feature.embedding_dim for feature in config.features] == [5, 5, 5]
    assert [feature.hash_bucket_size for feature in config.features[:2]] == [9, 9]
    assert list(config.features[2].boundaries) == [1, 2]
    assert len(config.eval_config.metrics_set) == 1


def test_all_wrong_overrides_at_once(config):
    wrong = [
        "train_config.num_step=5",
        "train_config.num_steps=many",
        "train_config.num_steps=-1",
        "no equals sign",
        "features[embedding_dim>100].embedding_dim=5",
        "data_config.input_type=CSV",
        "features[a].boundaries=[1, x]",
        "eval_config.metrics_set={ auc {",
        "features[a]={ embeding_dim: 3 }",
        "features[a].embedding_dim={}",
        "train_config.num_steps=",
    ]
    with pytest.raises(ConfigError) as caught:
        apply_overrides(config, wrong)
    assert {problem.file for problem in caught.value.problems} == {f"override {text}" for text in wrong}


@given(
    st.text(max_size=30),
    st.sampled_from(["model_dir", "features[a]", "features", "train_config.num_steps", "eval_config"]),
)
def test_any_text_is_set_or_is_refused_by_its_place(value, path):
    config = pipeline_pb2.EasyRecConfig()
    config.features.add(feature_name="a")
    override = f"{path}={value}"
    try:
        apply_overrides(config, [override])
    except ConfigError as refusal:
        places = {problem.file for problem in refusal.problems}
        assert places == {f"override {override}"}
    else:
        assert text_format.Parse(text_format.MessageToString(config), pipeline_pb2.EasyRecConfig()) == config


def test_locate(tmp_path):
    text = (
        'model_dir: "m"\n'
        'train_input_path: "t"\n'
        "train_config {\n"
        "  optimizer_config { adam_optimizer { learning_rate {\n"
        "    constant_learning_rate {} } } }\n"
        "}\n"
        "data_config { input_type: ParquetInput num_epochs: 1\n"
        '  label_fields: "y" }\n'
        "feature_config {\n"
        '  features { input_names: "a"\n'
        "    embedding_dim: 4 hash_bucket_size: 10 }\n"
        "}\n"
        'model_config { model_class: "DeepFM"\n'
        '  feature_groups { group_name: "deep" feature_names: "a" }\n'
        "  deepfm { dnn { hidden_units: [8,\n"
        "    4] } }\n"
        "}\n"
    )
    path = tmp_path / "c.config"
    path.write_text(text)
    config = load_config(path, ["features[a].embedding_dim=8"])
    lines = {
        "model_dir": 1,
        "train_config.optimizer_config[0].adam_optimizer.learning_rate.constant_learning_rate": 5,
        "train_config.num_steps": 3,
        "features[a].hash_bucket_size": 11,
        "features[a]": 10,
        "model_config.feature_groups[deep].feature_names[0]": 14,
        "model_config.deepfm.dnn.hidden_units[1]": 16,
        "model_config.deepfm.dnn.final_activation": 15,
    }
    assert {key: config.locate(key).line for key in lines} == lines
    assert config.locate("features[a].embedding_dim").file == "override features[a].embedding_dim=8"
    assert str(config.locate("model_dir")) == f"{path}:1:1"


def test_parse_path_keeps_the_text():
    assert parse_path("features[a].x").text == "features[a].x"
