#!/usr/bin/env bash
# All that waits for a CUDA GPU: the tests marked gpu, then the benchmarks. What comes out stands in benchmarks/results/.
#
#     benchmarks/gpu.sh    # wants pip install -e ".[dev,cuda,diffusion]", and 11 GB of disk for models of random weights
#
# What fails does not keep the rest from running; the exit status tells.
set -uo pipefail
cd "$(dirname "$0")/.."
python -c 'import sys, torch; torch.cuda.is_available() or sys.exit("torch finds no CUDA device")' || exit 1

status=0
run() {
    echo "\$ $*"
    "$@" || status=1
}

tests() {
    date --utc +%F
    nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
    # One process: several would share the GPU.
    run python -m pytest -m gpu -n 0
    return $status
}

tests 2>&1 | tee benchmarks/results/gpu_tests.txt || status=1
run python benchmarks/rendering.py --device cuda
run python benchmarks/diffusion.py
run python benchmarks/diffusion.py --compile
exit $status
