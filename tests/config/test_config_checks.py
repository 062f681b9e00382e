"""The checks: each of them finds its problem, at its place."""

import pytest

from easyrec_lite.config import ERROR, WARNING, ConfigError, Problem, load_config
from easyrec_lite.protos import options_pb2, pipeline_pb2

A = 'features { input_names: "a" embedding_dim: 8 hash_bucket_size: 100 }'
B = 'features { input_names: "b" embedding_dim: 8 num_buckets: 10 feature_type: TagFeature }'
N = 'features { input_names: "n" feature_type: RawFeature }'
S = 'features { input_names: "s" embedding_dim: 8 hash_bucket_size: 100 feature_type: SequenceFeature }'
# Sequences of numbers, and of the buckets of numbers.
NUMBERS = 'features { input_names: "s" embedding_dim: 8 feature_type: SequenceFeature sub_feature_type: RawFeature }'
BUCKETS = f"{NUMBERS[:-1]} boundaries: [1, 2] }}"
HISTORY = 'seq_att_map { key: "a" hist_seq: "s" }'
SHORT = "pad_sequence_length: 3"
LR = "constant_learning_rate { learning_rate: 0.01 }"
TOWER = 'towers { input: "all" dnn { hidden_units: [8, 4] } }'


def _problems(text):
    try:
        return list(load_config(text=text, path="c").warnings)
    except ConfigError as error:
        return error.problems


def test_base_has_none(base_text):
    assert _problems(base_text) == []


# What is replaced by what, and the path and a part of the text of the only problem that follows.
OPTIMIZER = "train_config.optimizer_config[0]"
RATE = f"{OPTIMIZER}.adam_optimizer.learning_rate"
ALL = "model_config.feature_groups[all]"
ENCODED = f"{ALL}.sequence_features[seq]"
SEQUENCES = f"{ENCODED}.seq_att_map[0]"
CASES = [
    # Support.
    ("num_steps: 10", "num_steps: 10 is_profiling: true", "train_config.is_profiling", "not implemented yet"),
    (
        "num_steps: 10",
        "num_steps: 10 train_distribute: MirroredStrategy",
        "train_config.train_distribute",
        "NoStrategy",
    ),
    ("num_steps: 10", "num_steps: 10 enable_oss_stop_signal: true", "train_config.enable_oss_stop_signal", "platform"),
    ("input_type: CSVInput", "input_type: OdpsInput", "data_config.input_type", "ParquetInput"),
    ("input_type: CSVInput", "input_type: DummyInput", "data_config.input_type", "not implemented yet"),
    ("model_config {", "model_config { num_class: 2", "model_config.num_class", "only num_class: 1"),
    ("model_config {", "model_config { loss_type: JRC_LOSS", "model_config.loss_type", "not implemented yet"),
    ("adam_optimizer {", "momentum_optimizer {", f"{OPTIMIZER}.momentum_optimizer", "adam_optimizer"),
    (A, f"{A[:-1]} ev_params {{ filter_freq: 2 }} }}", "features[a].ev_params", "not implemented yet"),
    # Required fields.
    ('model_dir: "m"', "", "model_dir", "required"),
    ('model_dir: "m"', 'model_dir: ""', "model_dir", "empty text"),
    ("input_type: CSVInput", "", "data_config.input_type", "required"),
    ('  model_class: "MultiTower"', "", "model_config.model_class", "required"),
    ("final_dnn { hidden_units: [4] }", "", "model_config.multi_tower.final_dnn", "required"),
    ("auc {}", "gauc {}", "eval_config.metrics_set[gauc].gauc.uid_field", "required"),
    # Numbers.
    ("data_config {", "data_config { batch_size: 0", "data_config.batch_size", "above 0"),
    ("data_config {", "data_config { max_bad_row_share: 1.5", "data_config.max_bad_row_share", "from 0 to 1"),
    ("learning_rate: 0.01", "learning_rate: 0", f"{RATE}.constant_learning_rate.learning_rate", "above 0"),
    ("learning_rate: 0.01", "learning_rate: nan", f"{RATE}.constant_learning_rate.learning_rate", "finite"),
    ("adam_optimizer {", "adam_optimizer { beta1: 1", f"{OPTIMIZER}.adam_optimizer.beta1", "below 1"),
    (
        "hidden_units: [8, 4]",
        "hidden_units: [8, 0]",
        "model_config.multi_tower.towers[all].dnn.hidden_units[1]",
        "above 0",
    ),
    (
        "hidden_units: [8, 4]",
        "hidden_units: [8, 4] dropout_ratio: 1",
        "model_config.multi_tower.towers[all].dnn.dropout_ratio[0]",
        "below 1",
    ),
    (
        "hidden_units: [8, 4]",
        "hidden_units: [8, 4] dropout_ratio: [0.1, 0.1, 0.1]",
        "model_config.multi_tower.towers[all].dnn.dropout_ratio",
        "one, or 2",
    ),
    ("hidden_units: [8, 4]", "", "model_config.multi_tower.towers[all].dnn.hidden_units", "nothing"),
    (
        "model_config {",
        "model_config { embedding_regularization: -1",
        "model_config.embedding_regularization",
        "0 or more",
    ),
    ("multi_tower {", "multi_tower { l2_regularization: -1", "model_config.multi_tower.l2_regularization", "0 or more"),
    # Names that must be one of a few.
    (
        "hidden_units: [8, 4]",
        'hidden_units: [8, 4] activation: "rellu"',
        "model_config.multi_tower.towers[all].dnn.activation",
        "did you mean 'relu'?",
    ),
    (A, f'{A[:-1]} combiner: "men" }}', "features[a].combiner", "did you mean 'mean'?"),
    # Optimizers and learning rates.
    (LR, "", RATE, "an empty block"),
    (f"learning_rate {{ {LR} }}", "", RATE, "nothing"),
    (f"adam_optimizer {{ learning_rate {{ {LR} }} }}", "", "train_config.optimizer_config[0]", "an empty block"),
    (
        f"optimizer_config {{ adam_optimizer {{ learning_rate {{ {LR} }} }} }}",
        "",
        "train_config.optimizer_config",
        "no optimizers",
    ),
    (
        LR,
        "manual_step_learning_rate { schedule { step: 5 } schedule { step: 4 } }",
        f"{RATE}.manual_step_learning_rate.schedule",
        "ascending",
    ),
    (
        LR,
        "cosine_decay_learning_rate { total_steps: 100 }",
        f"{RATE}.cosine_decay_learning_rate.total_steps",
        "warmup_steps",
    ),
    (
        LR,
        "poly_decay_learning_rate { learning_rate_base: 1 power: 1 }",
        f"{RATE}.poly_decay_learning_rate.total_steps",
        "required",
    ),
    # Features.
    (A, A.replace("hash_bucket_size: 100", ""), "features[a]", "no size of its table"),
    (A, A.replace("embedding_dim: 8", "embedding_dim: 0"), "features[a].embedding_dim", "width"),
    (A, A.replace("hash_bucket_size: 100", 'vocab_list: ["x", "x"]'), "features[a].vocab_list", "twice"),
    (A, A.replace("hash_bucket_size: 100", 'vocab_file: "/no/such"'), "features[a].vocab_file", "no file"),
    (A, A.replace('input_names: "a"', 'input_names: ["a", "b"]'), "features[a].input_names", "2 columns"),
    (A, f"{A} {A}", "features[1]", "a second feature named 'a'"),
    (A, f"{A[:-1]} normalizer_fn: 'x + 1' }}", "features[a].normalizer_fn", "a RawFeature"),
    (B, f"{B[:-1]} kv_separator: '|' }}", "features[b].kv_separator", "another one"),
    (B, f"{B[:-1]} kv_separator: ':' input_names: 'a' }}", "features[b].kv_separator", "one of them"),
    (
        B,
        B.replace("TagFeature", "ComboFeature").replace("num_buckets: 10", "hash_bucket_size: 9"),
        "features[b].input_names",
        "two or more",
    ),
    (N, f"{N[:-1]} normalizer_fn: 'lambda x: lgo(x)' }}", "features[n].normalizer_fn", "did you mean 'log'?"),
    (N, f"{N[:-1]} boundaries: [1, 2, 1] embedding_dim: 4 }}", "features[n].boundaries", "each bound once"),
    (N, f"{N[:-1]} boundaries: [1, 2] }}", "features[n].embedding_dim", "width"),
    (N, f"{N[:-1]} min_val: 2 max_val: 1 }}", "features[n].max_val", "above min_val"),
    (N, f"{N[:-1]} num_buckets: 4 embedding_dim: 4 }}", "features[n].num_buckets", "min_val and max_val"),
    (N, N.replace("RawFeature", "ExprFeature"), "features[n].expression", "nothing"),
    (S, f"{S[:-1]} sub_feature_type: TagFeature }}", "features[s].sub_feature_type", "IdFeature or RawFeature"),
    (S, f"{S[:-1]} seq_multi_sep: '|' }}", "features[s].seq_multi_sep", "another one"),
    (
        f"{A}\n{B}",
        f"{A[:-1]} embedding_name: 't' }}\n{B[:-1]} embedding_name: 't' }}".replace("num_buckets", "hash_bucket_size"),
        "features[b].hash_bucket_size",
        "10, where features[a] has 100",
    ),
    (B, f"{B[:-1]} embedding_name: 'a' }}", "features[b].hash_bucket_size", "they share the table 'a'"),
    (
        f"{A}\n{B}",
        f"{A[:-1]} initializer {{ constant_initializer {{ consts: 9 }} }} embedding_name: 'b' }}\n"
        + B.replace("num_buckets: 10", "hash_bucket_size: 100"),
        "features[b].initializer",
        "none, where features[a] has another one",
    ),
    # Columns.
    ('label_fields: "y"', 'label_fields: "z"', "data_config.label_fields[0]", "the unknown column 'z'"),
    ('label_fields: "y"', "", "data_config.label_fields", "no labels"),
    ('label_fields: "y"', 'label_fields: "y" sample_weight: "w"', "data_config.sample_weight", "unknown column 'w'"),
    ('{ input_name: "s" }', '{ input_name: "t" }', "features[s].input_names[0]", "unknown column 's'"),
    (
        '{ input_name: "b" }',
        '{ input_name: "b" } input_fields { input_name: "b" }',
        "data_config.input_fields[3]",
        "second column",
    ),
    ("auc {}", 'gauc { uid_field: "aa" }', "eval_config.metrics_set[gauc].gauc.uid_field", "unknown column 'aa'"),
    # Groups and towers.
    (
        'feature_names: ["a", "b", "n"]',
        'feature_names: ["a", "b", "m", "n"]',
        "model_config.feature_groups[all].feature_names[2]",
        "unknown feature 'm'",
    ),
    (
        'feature_names: ["a", "b", "n"]',
        'feature_names: ["a", "b", "n", "a"]',
        "model_config.feature_groups[all].feature_names[3]",
        "a second time",
    ),
    (
        'feature_names: ["a", "b", "n"]',
        'feature_names: ["a", "b", "n", "s"]',
        "model_config.feature_groups[all].feature_names[3]",
        "sequence_combiner",
    ),
    ('hist_seq: "s"', 'hist_seq: "b"', f"{SEQUENCES}.hist_seq[0]", "a TagFeature"),
    ('feature_names: ["a", "b", "n"]', 'feature_names: ["b", "n"]', f"{SEQUENCES}.key[0]", "allow_key_search"),
    # What a feature gives, and where it can go.
    (S, NUMBERS, f"{SEQUENCES}.hist_seq[0]", "'s', whose steps are numbers"),
    ('key: "a"', 'key: "n"', f"{SEQUENCES}.key[0]", "'n', a RawFeature that gives no ids"),
    (N, N.replace("RawFeature", "PassThroughFeature"), f"{ALL}.feature_names[2]", "'n', a PassThroughFeature"),
    (N, NUMBERS.replace('"s"', '"n"'), f"{ALL}.feature_names[2]", "the sequence of numbers 'n'"),
    (
        N,
        NUMBERS.replace('"s"', '"n"').replace(" }", " sequence_combiner { attention {} } }"),
        f"{ALL}.feature_names[2]",
        "the sequence of numbers 'n'",
    ),
    (N, BUCKETS.replace('"s"', '"n"'), f"{ALL}.feature_names[2]", "a sequence_combiner in the feature"),
    (S, f"{BUCKETS[:-1]} combiner: 'max' }}", "features[s].combiner", "the combiners of ids"),
    (
        N,
        f"{N[:-1]} raw_input_dim: 2 boundaries: [1, 2] embedding_dim: 4 combiner: 'max' }}",
        "features[n].combiner",
        "the combiners of ids",
    ),
    (
        S,
        f"{S[:-1]} sequence_combiner {{ text_cnn {{ filter_sizes: [2, 5] num_filters: [2, 2] {SHORT} }} }} }}",
        "features[s].sequence_combiner.text_cnn.filter_sizes[1]",
        "5, expected at most pad_sequence_length, 3",
    ),
    (S, S.replace("embedding_dim: 8", "embedding_dim: 4"), SEQUENCES, "equal widths"),
    # Self-attention: no candidate.
    ('key: "a" hist_seq: "s" }', 'key: "a" hist_seq: "s" } self_attention {}', f"{SEQUENCES}.key", "no key"),
    (
        'seq_att_map { key: "a" hist_seq: "s" }',
        'seq_att_map { hist_seq: "s" } self_attention { heads: 3 }',
        f"{ENCODED}.self_attention.heads",
        "3 heads for the steps of seq_att_map[0], which are 8 wide",
    ),
    (
        'seq_att_map { key: "a" hist_seq: "s" }',
        'seq_att_map { hist_seq: "s" } self_attention { heads: 0 }',
        f"{ENCODED}.self_attention.heads",
        "above 0",
    ),
    (
        'seq_att_map { key: "a" hist_seq: "s" }',
        'seq_att_map { hist_seq: "s" } self_attention { dropout_ratio: 1 }',
        f"{ENCODED}.self_attention.dropout_ratio",
        "below 1",
    ),
    (
        'seq_att_map { key: "a" hist_seq: "s" }',
        'seq_att_map { hist_seq: "s" } seq_dnn { hidden_units: 4 } self_attention {}',
        f"{ENCODED}.seq_dnn",
        "one of the two",
    ),
    ('seq_att_map { key: "a" hist_seq: "s" }', "self_attention {}", f"{ENCODED}.seq_att_map", "{ hist_seq"),
    ('seq_att_map { key: "a" hist_seq: "s" }', "seq_att_map {} self_attention {}", f"{SEQUENCES}.hist_seq", "nothing"),
    (
        "multi_tower {",
        'seq_att_groups { group_name: "h" seq_att_map { hist_seq: "s" } self_attention {} } multi_tower {',
        "model_config.seq_att_groups[h].self_attention",
        "sequence_features of a group",
    ),
    ('input: "all"', 'input: "al"', "model_config.multi_tower.towers[al].input", "did you mean 'all'?"),
    # One name, one network.
    (
        HISTORY,
        f"""{HISTORY} }} sequence_features {{ group_name: "seq" {HISTORY} seq_dnn {{ hidden_units: 4 }}""",
        f"{ALL}.sequence_features[1]",
        "another attention named 'seq'",
    ),
    (
        "multi_tower {",
        f'seq_att_groups {{ group_name: "h" {HISTORY} }} seq_att_groups {{ group_name: "h" {HISTORY} }} multi_tower {{',
        "model_config.seq_att_groups[1]",
        "a second group named 'h'",
    ),
    # Model and export.
    ('"MultiTower"', '"MultiTwoer"', "model_config.model_class", "did you mean 'MultiTower'?"),
    ('"MultiTower"', '"DeepFM"', "model_config.model_class", "the config holds multi_tower"),
    ("model_config {", 'model_config { label_name: "yy"', "model_config.label_name", "did you mean 'y'?"),
    (
        "model_config {",
        'export_config { exporter_type: "best" best_exporter_metric: "aucc" } model_config {',
        "export_config.best_exporter_metric",
        "did you mean 'auc'?",
    ),
    ('eval_input_path: "eval.csv"', 'export_config { exporter_type: "best" }', "eval_input_path", "no files"),
    (
        "model_config {",
        'export_config { exporter_type: "bset" } model_config {',
        "export_config.exporter_type",
        "'best'",
    ),
]


@pytest.mark.parametrize(("old", "new", "path", "part"), CASES, ids=[f"{case[2]}-{case[3]}" for case in CASES])
def test_finds(base_text, old, new, path, part):
    assert old in base_text
    problems = [problem for problem in _problems(base_text.replace(old, new, 1)) if problem.severity is ERROR]
    assert [problem.path for problem in problems] == [path]
    assert part in str(problems[0])
    assert problems[0].line


SECOND = f"num_steps: 10 optimizer_config {{ adam_optimizer {{ learning_rate {{ {LR} }} %s }} %s }}"
WARNINGS = [
    (
        "num_steps: 10",
        'num_steps: 10 fine_tune_ckpt_var_map: "x"',
        "train_config.fine_tune_ckpt_var_map",
        "without fine",
    ),
    (
        "num_steps: 10",
        "num_steps: 10 force_restore_shape_compatible: true",
        "train_config.force_restore_shape_compatible",
        "without fine_tune_checkpoint",
    ),
    (
        "num_steps: 10",
        SECOND % ("", "embedding_learning_rate_multiplier: 5"),
        "train_config.optimizer_config[1].embedding_learning_rate_multiplier",
        "in the first optimizer",
    ),
    (
        "num_steps: 10",
        SECOND % ("dense_decay: true", ""),
        "train_config.optimizer_config[1].adam_optimizer.dense_decay",
        "in the first optimizer",
    ),
    ("num_steps: 10", "num_steps: 10 sync_replicas: false", "train_config.sync_replicas", "no effect"),
    ("num_steps: 10", "", "train_config.num_steps", "never end"),
    (A, f"{A[:-1]} num_buckets: 5 }}", "features[a]", "hash_bucket_size is used"),
    (A, f"{A[:-1]} max_seq_len: 5 }}", "features[a].max_seq_len", "no effect"),
    (N, f"{N[:-1]} embedding_dim: 4 embedding_name: 'a' }}", "features[n].embedding_name", "no table to share"),
    (N, f"{N[:-1]} hash_bucket_size: 5 }}", "features[n].hash_bucket_size", "no effect"),
    (
        N,
        f'{N} features {{ feature_name: "u" input_names: "n" feature_type: RawFeature }}',
        "features[u]",
        "in no group",
    ),
    # The networks of attention.
    (
        HISTORY,
        f"{HISTORY} seq_dnn {{ hidden_units: 4 use_final_bn: true }}",
        f"{ENCODED}.seq_dnn.use_final_bn",
        "scores are linear",
    ),
    (
        "multi_tower {",
        f"""seq_att_groups {{ group_name: "h" {HISTORY} }}
        multi_tower {{ din_towers {{ input: "h" dnn {{ hidden_units: 4 final_activation: "tanh" }} }}""",
        "model_config.multi_tower.din_towers[h].dnn.final_activation",
        "scores are linear",
    ),
    (
        "multi_tower {",
        f'seq_att_groups {{ group_name: "h" {HISTORY} seq_dnn {{ hidden_units: 4 }} }} multi_tower {{',
        "model_config.seq_att_groups[h].seq_dnn",
        "the dnn of the din_tower",
    ),
    (
        "multi_tower {",
        f'seq_att_groups {{ group_name: "h" {HISTORY} need_key_feature: false }} multi_tower {{',
        "model_config.seq_att_groups[h].need_key_feature",
        "din_towers pass the key on",
    ),
]


# A feature, and fields that nothing reads in one of its type.
COMBO = 'features { input_names: ["a", "b"] embedding_dim: 8 hash_bucket_size: 9 feature_type: ComboFeature }'
LOOKUP = COMBO.replace("ComboFeature", "LookupFeature")
EXPR = 'features { input_names: "n" feature_type: ExprFeature expression: "n + 1" }'
RANGE = ("boundaries: [1, 2]", "min_val: -1", "max_val: 1")
UNREAD = {
    A: (
        *RANGE,
        *("kv_separator: ':'", "seq_multi_sep: ';'", "raw_input_dim: 2", "expression: 'a + 1'", "max_seq_len: 5"),
        *("sub_feature_type: RawFeature", "sequence_length: 5", "combo_join_sep: '_'", "lookup_max_sel_elem_num: 3"),
    ),
    B: (*RANGE, "seq_multi_sep: ';'", "combo_input_seps: ['', '']"),
    N: ("expression: 'n + 1'", "kv_separator: ':'", "vocab_list: 'x'", "vocab_file: 'x'", "sequence_length: 5"),
    S: (*RANGE, "kv_separator: ':'", "sequence_length: 5", "raw_input_dim: 2"),
    BUCKETS: ("hash_bucket_size: 9", "expression: 's + 1'", "kv_separator: ':'"),
    COMBO: ("vocab_list: 'x'", "num_buckets: 9", "kv_separator: ':'"),
    LOOKUP: ("num_buckets: 9", "sequence_combiner { attention {} }"),
    EXPR: RANGE,
}


@pytest.mark.parametrize(
    ("feature", "field"), [(feature, field) for feature, fields in UNREAD.items() for field in fields]
)
def test_warns_of_fields_that_a_feature_does_not_read(base_text, feature, field):
    """And of no other: those that it has already are read."""
    text = base_text
    for old in (A, B, N, S):
        if feature.split(" embedding_dim")[0].split(" feature_type")[0] in old:
            text = text.replace(old, feature)
    if feature not in text:
        text = text.replace("model_config {", f"{feature[:-1]} feature_name: 'x' }}\nmodel_config {{")
        text = text.replace('"a", "b", "n"', '"a", "b", "n", "x"')
        feature = f"{feature[:-1]} feature_name: 'x' }}"
    assert _problems(text) == []
    (problem,) = _problems(text.replace(feature, f"{feature[:-1]} {field} }}"))
    name = field.split(":")[0].split(" ")[0]
    assert problem.path.endswith(f".{name}")
    assert problem.severity is WARNING
    assert f"{name} in a feature of type" in str(problem)
    assert "it has no effect here" in str(problem)


@pytest.mark.parametrize(("old", "new", "path", "part"), WARNINGS, ids=[case[2] for case in WARNINGS])
def test_warns(base_text, old, new, path, part):
    (problem,) = _problems(base_text.replace(old, new, 1))
    assert (problem.path, problem.severity) == (path, WARNING)
    assert part in str(problem)
    assert "warning: " in str(problem)
    assert problem.line


def test_attention_of_one_name_may_stand_twice(base_text):
    again = f'{HISTORY} }} sequence_features {{ group_name: "seq" need_key_feature: false {HISTORY}'
    assert _problems(base_text.replace(HISTORY, again)) == []
    others = f'{HISTORY} }} sequence_features {{ group_name: "more" {HISTORY} seq_dnn {{ hidden_units: 4 }}'
    assert _problems(base_text.replace(HISTORY, others)) == []


def test_a_default_written_out_is_no_problem(base_text):
    text = base_text.replace(
        "num_steps: 10", "num_steps: 10 sync_replicas: true train_distribute: NoStrategy dead_line: ''"
    )
    text = text.replace("optimizer_config {", "optimizer_config { use_moving_average: false")
    text = text.replace(
        "model_config {", "model_config { num_class: 1 loss_weight_strategy: Fixed loss_type: CLASSIFICATION"
    )
    assert _problems(text) == []


def test_no_columns_are_needed_where_the_files_name_them(base_text):
    for change in ("input_type: CSVInput\n  with_header: true", "input_type: ParquetInput"):
        text = base_text.replace("input_type: CSVInput", change).replace('input_fields { input_name: "s" }', "")
        assert _problems(text) == []


def test_columns_are_needed_elsewhere(base_text):
    lines = [line for line in base_text.splitlines() if "input_fields" not in line]
    (problem,) = _problems("\n".join(lines))
    assert problem.path == "data_config.input_fields"


def test_wide_features_need_no_width(base_text):
    text = base_text.replace("multi_tower {", "deepfm { dnn { hidden_units: 4 } } } unused {")
    text = text[: text.index("} unused")] + "}\n"
    text = text.replace('"MultiTower"', '"DeepFM"').replace(A, A.replace("embedding_dim: 8 ", ""))
    text = text.replace(
        "sequence_features {",
        "wide_deep: WIDE } feature_groups { group_name: 'deep' feature_names: 'b' sequence_features {",
    )
    text = text.replace('key: "a"', 'key: "b"')
    assert [problem for problem in _problems(text) if problem.severity is ERROR] == []


def test_no_table_has_the_name_of_a_wide_one(base_text):
    wide = "feature_groups { group_name: 'w' wide_deep: WIDE feature_names: 'b' } multi_tower {"
    text = base_text.replace(A, f"{A[:-1]} embedding_name: 'b_wide' }}").replace("multi_tower {", wide)
    (problem,) = _problems(text)
    assert (problem.path, problem.severity) == ("features[a]", ERROR)
    assert "the table of 'b' in WIDE groups" in str(problem)


def test_checks_of_other_rooms_get_places_and_run_last(base_text):
    def check(config):
        assert config.features[0].feature_name == "a"
        yield Problem("features[a].embedding_dim", "8", "a prime number")

    with pytest.raises(ConfigError) as caught:
        load_config("c", checks=[check], text=base_text)
    (problem,) = caught.value.problems
    line = base_text.splitlines().index(A) + 1
    assert (problem.file, problem.line, problem.column) == ("c", line, A.index("embedding_dim") + 1)
    assert str(caught.value).splitlines()[1] == (
        f"  c:{line}:{problem.column}: features[a].embedding_dim: found 8, expected a prime number"
    )


def _unsupported(message, path=()):
    """Every field that is not supported, as the messages around it and the field."""
    for field in message.DESCRIPTOR.fields:
        support = field.GetOptions().Extensions[options_pb2.support]
        if support != options_pb2.SUPPORTED:
            yield path, field, support
        elif field.message_type is not None and field.message_type.full_name.startswith("easyrec_lite."):
            inner = getattr(message, field.name)
            yield from _unsupported(inner.add() if field.is_repeated else inner, (*path, field))


def _set_to_another(message, field):
    if field.message_type is not None:
        value = getattr(message, field.name)
        value.add() if field.is_repeated else value.SetInParent()
    elif field.is_repeated:
        getattr(message, field.name).append("x" if field.cpp_type == field.CPPTYPE_STRING else 1)
    elif field.enum_type is not None:
        setattr(message, field.name, next(v.number for v in field.enum_type.values if v.number != field.default_value))
    else:
        default = field.default_value
        other = f"{default}x" if isinstance(default, str) else not default if isinstance(default, bool) else default + 1
        setattr(message, field.name, other)


def test_every_support_annotation_is_enforced():
    cases = list(_unsupported(pipeline_pb2.EasyRecConfig()))
    assert len(cases) > 80
    for parents, field, support in cases:
        config = message = pipeline_pb2.EasyRecConfig()
        for parent in parents:
            inner = getattr(message, parent.name)
            message = inner.add() if parent.is_repeated else inner
        _set_to_another(message, field)
        severity = WARNING if support == options_pb2.NO_EFFECT else ERROR
        with pytest.raises(ConfigError) as caught:  # model_dir and more is missing
            load_config(message=config)
        found = [problem for problem in caught.value.problems if problem.path.endswith(field.name)]
        assert severity in [problem.severity for problem in found], (field.full_name, caught.value)


def test_secrets_stand_nowhere_in_the_errors():
    text = 'kafka_train_input { server: "s" config_global: "sasl.password=hunter2" }'
    with pytest.raises(ConfigError) as caught:
        load_config(text=text)
    assert "hunter2" not in str(caught.value)
