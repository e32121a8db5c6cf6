#!/usr/bin/env bash
# Where there is a registry: packs what a GPU machine without one lacks beside its own torch, for `bash bench/gpu.sh FILE`.
#   bash bench/gpu/pack.sh site.tar.xz [PYTHON_VERSION]      3.12 unless said
# Versions are those of requirements/runtime.txt. Libraries of CUDA that bitsandbytes brings for other versions are left out.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
FILE=$1 VERSION=${2:-3.12}
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
pinned() { grep -oE "^$1==[^ ]+" "$ROOT/requirements/dev.txt"; }
packages=(liger-kernel==0.8.5)
for name in transformers peft accelerate bitsandbytes datasets dill multiprocess xxhash; do
  packages+=("$(pinned "$name")")
done
"$ROOT/.venv/bin/uv" pip install --quiet --no-deps --only-binary :all: --python-platform x86_64-manylinux_2_28 \
  --python-version "$VERSION" --target "$site" "${packages[@]}"
find "$site/bitsandbytes" -name '*.so' ! -name '*cuda130*' ! -name '*cpu*' -delete
find "$site" -name __pycache__ -prune -exec rm -rf {} +
tar -cJf "$FILE" -C "$site" .
ls -l "$FILE"
