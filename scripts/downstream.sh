#!/usr/bin/env bash
# What published user embeddings bring to a ranker (table 3 of DV365) and a two-tower (table 4):
#
#   scripts/downstream.sh simulated | kuairand | ebnerd
#
# DV365 is fitted on the days before those the consumers are fitted on. Its embeddings are published
# once a day, and each row of a consumer sees the newest that was served at its moment. Everything
# lies in runs/downstream/<log>; what is there already is not made again.
set -euo pipefail
cd "$(dirname "$0")/.."
log=${1:?simulated, kuairand or ebnerd}
out=runs/downstream/$log

case $log in
simulated) # days of a simulated January; recsys data simulate simulator=long simulator.users=3000 simulator.fit_days=9 out=logs/downstream
    upstream=(experiment=dv365_simulated data.path=logs/downstream)
    days=(2026-01-{24,25,26,27,28,29})
    before='{choose_from: 2026-01-24, report_from: 2026-01-25, report_until: 2026-01-26}'
    ;;
kuairand) # days of China
    upstream=(experiment=dv365_kuairand)
    days=(2022-04-30 2022-05-0{1,2,3,4,5,6,7})
    days=("${days[@]/%/T16:00:00}")
    before='{fit_from: 2022-04-08, choose_from: 2022-04-30, report_from: 2022-05-01, report_until: 2022-05-02}'
    ;;
ebnerd) # days that begin at 7:00, as the owners' weeks do
    upstream=(experiment=dv365_ebnerd)
    days=(2023-05-{21,22,23,24,25,26,27,28,29,30,31}T07:00:00)
    before='{choose_from: 2023-05-20T07:00:00, report_from: 2023-05-21T07:00:00, report_until: 2023-05-22T07:00:00}'
    ;;
*) echo "downstream.sh: $log is none of simulated, kuairand and ebnerd." >&2 && exit 2 ;;
esac

upstream+=(data.name="${log}_upstream" data.options="$before" run_dir="$out/dv365")
[ -e "$out/dv365/checkpoints/best.ckpt" ] || recsys train "${upstream[@]}"
[ -d "$out/dv365/artifact" ] || recsys export run_dir="$out/dv365"
for day in "${days[@]}"; do
    store=$out/published/${day%T*}
    [ -d "$store" ] || recsys publish run_dir="$out/dv365" as_of="$day" store="$store"
done
recsys study study="ranker_$log" out="$out/ranker"
recsys study study="two_tower_$log" out="$out/two_tower"
