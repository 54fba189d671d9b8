#!/usr/bin/env bash
# Installs verl and OpenRLHF, with what they load without a GPU, into a cached environment of their own.
# `install.sh` creates it if it is missing and prints its Python; `install.sh --where` only prints the path.
#
# It takes 1.8 GB on disk, most of it torch, and two minutes with a near package index. A plain PyPI has only
# torch's CUDA build: name an index with the CPU build in PIP_EXTRA_INDEX_URL. PYTHON selects the interpreter.
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
flock 9 # of two concurrent lanes the second waits, then finds it complete
if [[ ! -e $venv/complete ]]; then
    echo "installing verl and OpenRLHF into $venv" >&2
    {
        rm -rf "$venv"
        "${PYTHON:-python3}" -m venv "$venv"
        pip() { "$python" -m pip --quiet --disable-pip-version-check "$@" --constraint "$here/constraints.txt"; }
        pip install torch setuptools
        grep -vE '^(torch|verl|openrlhf|deepspeed)==' <<<"$pins" >"$venv/needs.txt"
        pip install --requirement "$venv/needs.txt"
        DS_BUILD_OPS=0 pip install deepspeed # its kernels are built on first use, which never happens here
        pip install --no-deps verl openrlhf
        "$python" -m compileall -q "$venv"/lib/python*/site-packages/{verl,openrlhf,transformers} || true
        touch "$venv/complete"
    } >&2
fi
echo "$python"
