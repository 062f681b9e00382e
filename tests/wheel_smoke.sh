#!/usr/bin/env bash
# Installs dist/*.whl into a new environment outside of the checkout and goes through the commands there.
# Shows that the wheel is complete: nothing may be found in the source tree by accident. Run `make wheel` first.
set -euo pipefail
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$checkout/.venv/bin/python
config=multi_tower_taobao.config

away=$(mktemp -d)
trap 'rm -rf "$away"' EXIT

# The generator belongs to the checkout, not to the wheel.
(cd "$checkout" && "$python" -m tools.data.taobao_like --rows 5000 --out "$away/data/taobao" >/dev/null)
cp "$checkout/samples/configs/$config" "$away"

"$python" -m venv "$away/venv"
"$away/venv/bin/python" -m pip install --disable-pip-version-check --quiet "$checkout"/dist/*.whl

cd "$away"
unset PYTHONPATH
run() { "$away/venv/bin/python" -m "$@"; }

"$away/venv/bin/python" -c 'import easyrec_lite, sys; sys.exit(not easyrec_lite.__file__.startswith(sys.prefix))'
run easyrec_lite.check "$config"
run easyrec_lite.train --config "$config" --model_dir model --edit train_config.num_steps=5
run easyrec_lite.evaluate --config "$config" --model_dir model
run easyrec_lite.export --config "$config" --model_dir model --export_dir export
ls export/*/saved_model.pb
