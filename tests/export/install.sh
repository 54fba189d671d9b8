#!/usr/bin/env bash
# verl's and OpenRLHF's own code, with what it loads where there is no GPU, in a cached environment of its
# own: `install.sh` makes it where it is missing and prints its python; `install.sh --where` only prints
# where that would be.
#
# 1.8 GB on disk, most of it torch; two minutes where the wheels are near. Where pip's index has torch's CUDA
# build alone (a plain PyPI), name one that has the CPU's in PIP_EXTRA_INDEX_URL. PYTHON picks the interpreter.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
pins=$(grep -v '^#' "$here/constraints.txt")
venv=${XDG_CACHE_HOME:-$HOME/.cache}/thinkgate/export-$(sha256sum <<<"$pins" | cut -c1-8)
python=$venv/bin/python

if [[ ${1:-} == --where ]]; then
    echo "$python"
    exit
fi
mkdir -p "$(dirname "$venv")"
exec 9>"$venv.lock"
flock 9 # two lanes at once: the second waits, then finds it done
if [[ ! -e $venv/complete ]]; then
    echo "installing verl and OpenRLHF into $venv" >&2
    {
        rm -rf "$venv"
        "${PYTHON:-python3}" -m venv "$venv"
        pip() { "$python" -m pip --quiet --disable-pip-version-check "$@" --constraint "$here/constraints.txt"; }
        pip install torch setuptools
        grep -vE '^(torch|verl|openrlhf|deepspeed)==' <<<"$pins" >"$venv/needs.txt"
        pip install --requirement "$venv/needs.txt"
        DS_BUILD_OPS=0 pip install deepspeed # its own kernels are built on first use, which is never
        pip install --no-deps verl openrlhf
        "$python" -m compileall -q "$venv"/lib/python*/site-packages/{verl,openrlhf,transformers} || true
        touch "$venv/complete"
    } >&2
fi
echo "$python"
