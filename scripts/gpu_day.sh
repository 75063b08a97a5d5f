#!/usr/bin/env bash
# What a machine with a GPU is asked when there is one, in order of worth, in at most eight minutes:
#
#   scripts/gpu_day.sh [FOLDER]           FOLDER: $OUT, else runs/gpu_day/<time>
#   DEVICE=cpu scripts/gpu_day.sh FOLDER  the same parts, shortened, without a GPU
#   PARTS="doctor lookup" scripts/gpu_day.sh FOLDER   these alone
#
# Each part has a time of its own and writes FOLDER/<number>-<part>.txt while it runs; the last line
# says how it ended. A part that fails or is cut off does not keep the later ones from running. The
# code is 0 where every part that was asked for has ended well. PYTHON names the Python to use,
# LIMIT the seconds of all parts together. docs/gpu.md says what to look at.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

device=${DEVICE:-cuda}
python=${PYTHON:-$([[ -x .venv/bin/python ]] && echo "$PWD/.venv/bin/python" || command -v python3)}
out=${1:-${OUT:-runs/gpu_day/$(date +%Y-%m-%d_%H-%M-%S)}}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
limit=${LIMIT:-475} slower=1 # and 5 for what does not end when it is told to
[[ $device == cuda ]] || limit=${LIMIT:-7200} slower=20 # an old core, and twenty jobs beside it
export device python work
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 COLUMNS=160

recsys() { "$python" -m recsys "$@"; }
on_gpu() { [[ $device == cuda ]]; }
# Sizes of a GPU, or of a machine that only shows that a part runs.
sized() { if on_gpu; then echo "$1"; else echo "$2"; fi; }
tests() { "$python" -m pytest -q -p no:cacheprovider --color=no -m "$(sized gpu 'gpu or not gpu')" "$@"; }

# --------------------------------------------------------------------- parts

doctor() {
    ! on_gpu || nvidia-smi
    recsys doctor
}

lookup() {
    recsys bench lookup device="$device" --json \
        $(sized "rows=10000000 width=128 bags=65536 lookups=20 copied_mib=4096" \
            "rows=1000 bags=64 lookups=5 copied_mib=8 repeats=2")
}

gpu_tests() { tests tests/gpu --durations=5; }

losses() { recsys bench devices device="$device" steps="$(sized 100 3)" --json; }

steps() {
    local failed=0 system sizes
    trap 'kill $!; exit 124' TERM # what is under way has a time, and so a process group, of its own
    sizes=$(sized "steps=30 rounds=1" "steps=2 warm_up=1 rounds=1")
    for system in dv365 nxtpost "sequence overrides=[model=hstu]" sequence ranker post_tower \
        two_tower wide_and_deep; do
        echo "== $system"
        timeout "$(sized 45 1400)" "$python" -m recsys bench step system=$system "device=$device" \
            $sizes "simulation=[simulator=demo,simulator.users=$(sized 600 40),simulator.post_embedding.width=64]" \
            --json &
        wait $! || failed=1
        on_gpu || [[ $system != nxtpost ]] || break # two show that it runs
    done
    return "$failed"
}

kernels() {
    recsys bench kernels device="$device" --json \
        $(sized "users=1024 catalogue=1000000 sequences=256 length=1000 product=8192 repeats=10" \
            "users=2 catalogue=500 sequences=2 length=20 product=64 repeats=1")
}

publish() {
    set -e
    local users steps
    users=$(sized 300 40) steps=$(sized 100 3)
    recsys data simulate simulator=demo "simulator.users=$users" simulator.catalogue.items=2000 \
        simulator.catalogue.authors=100 out="$work/log"
    recsys train experiment=demo "trainer=$(sized gpu cpu)" trainer.progress_bar=false \
        "trainer.max_steps=$steps" "trainer.validate_every_n_steps=$steps" model.dimension=16 \
        data.path="$work/log" data.out="$work/prepared" run_dir="$work/run"
    recsys export run_dir="$work/run" measure=false
    recsys publish run_dir="$work/run"
}

two_processes() { "$python" -m tests.gpu.two_processes "$device"; }

export -f recsys on_gpu sized tests
export -f doctor lookup gpu_tests losses steps kernels publish two_processes

# ------------------------------------------------------------- running them

number=0 failed=0
part() { # name, seconds at most
    local name=$1 seconds=$(($2 * slower)) left file begun=$SECONDS code
    number=$((number + 1))
    [[ -z ${PARTS:-} || " $PARTS " == *" $name "* ]] || return 0
    file=$out/$number-$name.txt
    left=$((limit - SECONDS))
    if ((left < 5)); then
        echo "not started: $limit seconds are over" >"$file"
        code=124
    else
        ((seconds <= left)) || seconds=$left
        timeout --kill-after=5 "$seconds" bash -c "set -uo pipefail; $name" >"$file" 2>&1
        code=$?
    fi
    case $code in
    0) echo "ended well after $((SECONDS - begun)) s" ;;
    124 | 137) echo "cut off after $((SECONDS - begun)) s" ;;
    *) echo "FAILED with code $code after $((SECONDS - begun)) s" ;;
    esac >>"$file"
    ((code == 0)) || failed=1
    echo "$number $name: $(tail -n 1 "$file")"
}

part doctor 45
part lookup 45
part gpu_tests 120
part losses 90
part steps 150
part kernels 45
part publish 90
part two_processes 60
echo "written to $out"
exit "$failed"
