#!/usr/bin/env bash
# One night of `mla-tune retune` for cron, systemd or a CI runner: one at a time, logged.
#
#   MLA_TUNE_FOLDER=/srv/tables nightly_retune.sh [options of mla-tune retune]
#
#   MLA_TUNE_FOLDER  the folder of the tables
#   MLA_TUNE_STATE   studies, logs and the lock [~/.local/state/mla-tune]
#   MLA_TUNE_LOGS    days for which logs are kept [14]
#
# Exits as `mla-tune retune` does: 0 nothing changed, 10 tables changed, 1 failed, 2 bad input;
# and 75 where the night before still runs. The last line of $MLA_TUNE_STATE/nights says how it ended.
set -euo pipefail

tables=${MLA_TUNE_FOLDER:?names the folder of the tables}
state=${MLA_TUNE_STATE:-${XDG_STATE_HOME:-$HOME/.local/state}/mla-tune}
days=${MLA_TUNE_LOGS:-14}
mkdir -p "$state/logs" "$state/studies"

# Held by all that this starts, so it ends with the last of them.
exec 9>"$state/nightly.lock"
if ! flock --nonblock 9; then
    echo "the night before still runs in $state" >&2
    exit 75
fi

began=$(date -u +%Y-%m-%dT%H%M%SZ)
log=$state/logs/retune-$began.log
find "$state/logs" -name 'retune-*.log' -mtime "+$days" -delete

code=0
mla-tune retune "$tables" --study-dir "$state/studies" "$@" >"$log" 2>&1 || code=$?
tail -n 40 "$log"
echo "$began code=$code log=$log" >>"$state/nights"
exit "$code"
