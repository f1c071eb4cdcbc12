#!/usr/bin/env bash
# What the shipped H200 tables came from; run on the GPU host, with vLLM on PYTHONPATH.
# Usage: scripts/h200_night.sh TP OUT [extra mla-tune arguments]
set -uo pipefail
tp=$1 out=$2
shift 2
python3 -m mla_tune --backend TRITON_MLA --backend FLASH_ATTN_MLA --backend FLASHMLA \
    --shapes examples/h200.yaml --tensor-parallel-size "$tp" --out "$out/tables" \
    --study-dir "$out/studies" --confirm-seconds 5 "$@"
