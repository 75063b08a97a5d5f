#!/usr/bin/env bash
# Write requirements/torch-<version>.txt, dev.txt, triton.txt and a lock per extra anew
# from setup.cfg, torchrec.in, sweeps.in and dev.in.
# Usage: requirements/lock.sh <python> <torch version> <fbgemm version> <torchrec version>
# With CONSTRAINTS=requirements/torch-2.13.txt the other packages keep the versions of that lock, and
# only the lock of this torch is written.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1 torch=$2 fbgemm=$3 torchrec=$4
lock=requirements/torch-${torch%.*}.txt
environment=$(mktemp -d)
trap 'rm -rf "$environment"' EXIT
"$python" -m venv "$environment"
pip=("$environment/bin/python" -m pip --disable-pip-version-check --quiet)

# The packages of torch's own CUDA dependencies are pinned by torch and differ between its builds.
freeze() {
    "$environment/bin/python" -m pip freeze --all --exclude pip --exclude recsys |
        sed -E 's/\+[a-z0-9.]+$//; s/^fbgemm_gpu-cpu/fbgemm-gpu-cpu/' |
        grep -v -i -E '^(nvidia|cuda|triton)' | sort -f
}

constraints=()
if [ -n "${CONSTRAINTS:-}" ]; then
    grep -v -E '^(torch|torchrec|fbgemm-gpu-cpu|setuptools)==' "$CONSTRAINTS" >"$environment/constraints.txt"
    constraints=(--constraint "$environment/constraints.txt")
fi
"${pip[@]}" install "torch==$torch" "setuptools>=77" "${constraints[@]}"
"${pip[@]}" install --no-deps "fbgemm-gpu-cpu==$fbgemm" "torchrec==$torchrec"
"$environment/bin/python" - >"$environment/runtime.in" <<'PYTHON'
import configparser

setup = configparser.ConfigParser()
setup.read("setup.cfg")
print(setup["options"]["install_requires"].strip())
PYTHON
"${pip[@]}" install -r "$environment/runtime.in" -r requirements/torchrec.in \
    -r requirements/sweeps.in "${constraints[@]}"
"${pip[@]}" install --no-deps "sweeps>=0.3" "${constraints[@]}"
{
    echo "# Written by requirements/lock.sh; recsys.install reads it and replaces fbgemm-gpu-cpu by"
    echo "# fbgemm-gpu where torch and the driver have CUDA."
    freeze
} >"$lock"
if [ -n "${CONSTRAINTS:-}" ]; then
    # both sets have the same packages, so what is installed beside either was locked with the first
    diff <(cut -d= -f1 "$CONSTRAINTS") <(cut -d= -f1 "$lock")
    echo "wrote $lock"
    exit
fi
required_by() {
    "$environment/bin/python" - "$1" <<'PYTHON'
import configparser
import sys

setup = configparser.ConfigParser()
setup.read("setup.cfg")
print(setup["options.extras_require"][sys.argv[1]].strip())
PYTHON
}
for extra in boosting tensorboard prometheus serve tables tune ray; do
    "${pip[@]}" install -r <(required_by $extra) --constraint "$lock"
    {
        echo "# Written by requirements/lock.sh; what the extra needs beside either torch."
        freeze | grep -v -x -F -f "$lock"
    } >requirements/$extra.txt
    "$environment/bin/python" -m pip uninstall --quiet --yes -r requirements/$extra.txt
done
# FAISS for GPUs has the files of faiss-cpu, and brings CUDA 12's libraries whatever torch is for.
"${pip[@]}" install --target "$environment/gpu-index" "$(required_by gpu-index)" --constraint "$lock"
{
    echo "# Written by requirements/lock.sh; what the extra needs beside either torch."
    "$environment/bin/python" -m pip freeze --path "$environment/gpu-index" |
        sed 's/_/-/g' | grep -v -x -F -f "$lock" | sort -f
} >requirements/gpu-index.txt
"${pip[@]}" install -r requirements/dev.in
{
    echo "# Written by requirements/lock.sh; installed beside either torch."
    # moto's botocore asks for an older dateutil than the lock has, and works with this one
    freeze | grep -v -x -F -f "$lock" | grep -v '^python-dateutil=='
} >requirements/dev.txt
"${pip[@]}" install --upgrade triton
{
    echo "# Written by requirements/lock.sh. Runs the tests of the Triton kernels in Triton's interpreter where"
    echo "# torch is a CPU build; a CUDA build of torch brings the Triton that it needs."
    "$environment/bin/python" -m pip freeze | grep -i '^triton=='
} >requirements/triton.txt
echo "wrote $lock, requirements/dev.txt, requirements/triton.txt and the locks of the extras"
