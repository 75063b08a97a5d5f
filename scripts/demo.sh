#!/usr/bin/env bash
# What `make demo` runs once .venv is made: every line below is a command one could type.
# Everything it writes lies in runs/demo, which is made anew.
set -euo pipefail
cd "$(dirname "$0")/.."
demo=$PWD/runs/demo
rm -rf "$demo"

step() {
    printf '\n\033[1m$ recsys %s\033[0m\n' "$*"
    recsys "$@"
}

log=(data.path="$demo/log" data.out="$demo/prepared")
step data simulate simulator=demo out="$demo/log"
step data prepare data=simulated name=demo path="$demo/log" out="$demo/prepared"
step train experiment=demo_without_timelines run_dir="$demo/without_timelines" "${log[@]}"
step train experiment=demo run_dir="$demo/dv365" "${log[@]}"
step evaluate run_dir="$demo/dv365" against="$demo/without_timelines"
step export run_dir="$demo/dv365"
step publish run_dir="$demo/dv365"
step report run_dir="$demo/dv365" against="$demo/without_timelines"
