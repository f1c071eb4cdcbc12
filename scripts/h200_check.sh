#!/usr/bin/env bash
# Two independent tunes of 16 heads, one of 128 heads, and a second look at what they publish.
# Usage: scripts/h200_check.sh OUT, on the GPU host with vLLM on PYTHONPATH.
set -uo pipefail
out=$1
scripts/h200_night.sh 8 "$out/one" --record "$out/h16.jsonl.gz" --record-rounds 24 > "$out/one16.log" 2>&1
scripts/h200_night.sh 1 "$out/one" > "$out/one128.log" 2>&1
scripts/h200_night.sh 8 "$out/two" > "$out/two16.log" 2>&1
python3 scripts/compare_tables.py "$out/one/tables" "$out/two/tables" > "$out/compare.txt"
python3 -m mla_tune recheck "$out"/one/tables/*.yaml > "$out/recheck.txt" 2>&1
tail -n 1 "$out/compare.txt"
grep -c '×' "$out/recheck.txt"
grep -E 'slower|all good|not as good' "$out/recheck.txt"
