#!/usr/bin/env bash
# Whole engines beside each other: what docs/h200.md says about them. Half an hour.
# Usage: scripts/h200_engine.sh OUT [triton | flash_attn | flashmla | extends]…, on the GPU host.
# Called again with the same OUT it starts new engines for what is undecided.
set -uo pipefail
out=$1
shift
mkdir -p "$out"
measure() {
    local name=$1
    shift
    python3 scripts/bench_engine.py --tables tuned_configs --out "$out/$name.json" "$@" | tee -a "$out/$name.txt"
}
[ $# -gt 0 ] || set -- triton flash_attn flashmla extends
for part in "$@"; do
    case $part in
    triton) measure triton --backend TRITON_MLA ;;
    # Extends that the tables promise something for at 16 heads, and their neighbours.
    flash_attn)
        measure flash_attn --backend FLASH_ATTN_MLA --no-kv-run \
            --extends 512 --extend-batches 4,8,32 --extend-contexts 512,3584
        ;;
    flashmla)
        measure flashmla --backend FLASHMLA --no-kv-run \
            --extends 256 --extend-batches 8 --extend-contexts 768,7936
        ;;
    # At 128 heads the default threshold of FLASH_ATTN_MLA costs most.
    extends)
        measure extends --backend FLASH_ATTN_MLA --heads 128 --no-kv-run --batches 32 --contexts 1k \
            --extends 256,512 --extend-batches 8,32 --extend-contexts 512
        ;;
    *) echo "unknown part: $part" >&2 && exit 2 ;;
    esac
done
