#!/usr/bin/env bash
# What `make demo-funnel` runs once .venv is made: every line below is a command one could type.
# Everything it writes lies in runs/demo_funnel, which is made anew, or in a new folder that is given.
# It serves until Ctrl-C, at $PORT.
set -euo pipefail
cd "$(dirname "$0")/.."
demo=${1:-$PWD/runs/demo_funnel}
[ $# -gt 0 ] || rm -rf "$demo"

step() {
    printf '\n\033[1m$ recsys %s\033[0m\n' "$*"
    recsys "$@"
}

step data simulate simulator=explore_small out="$demo/log"
step data prepare data=simulated name=explore path="$demo/log" out="$demo/prepared"
# Here a two-tower and a ranker would be trained and exported: policy and funnel explore_models then.
step online simulation="$demo/log" policy=explore against=popular
printf '\nThe next line has the address of the page; Ctrl-C ends the service.\n'
exec recsys serve funnel=explore dataset="$demo/prepared" state="$demo/served" clock=log inspector=true \
    port="${PORT:-8080}"
