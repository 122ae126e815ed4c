#!/bin/sh
# Does a text encoder matter? Digits drawn from the words of four encoders: random vectors, and T5 of three sizes.
# A quarter of an hour on a large GPU; about three hours on two cores, as reckoned from one model. From the root of the repository, with `imagen` on the path (or
# IMAGEN=target/release/imagen):
#
#     sh docs/runs/text-encoders/study.sh
#
# DEVICE=cpu or gpu says where (else auto). It writes runs/text-encoders. Stopped, it goes on where it was when it is started
# again. On a CPU results do not depend on how many cores there are, or on what else runs at the same time.
set -eu
imagen=${IMAGEN:-imagen}
device=${DEVICE:-auto}
runs=runs/text-encoders

# Trains, or goes on, or does nothing if that was done: finished CONFIG RUN SETTINGS...
finished() {
    config=$1 run=$2
    shift 2
    [ -e "$runs/$run/model.safetensors" ] && return
    resume=
    [ -e "$runs/$run/config.toml" ] && resume=--resume
    "$imagen" train "$config" --out "$runs/$run" --device "$device" --threads 1 --quiet $resume "$@"
}

# A text encoder of another size than the bundled one: 10 000 steps on the same texts with the same pieces. The smaller ones
# bear a larger learning rate.
pretrained() {
    name=$1 d_model=$2 d_kv=$3 heads=$4 layers=$5 d_ff=$6
    finished configs/t5-mini.toml "$name" --set t5.d_model="$d_model" --set t5.d_kv="$d_kv" --set t5.num_heads="$heads" \
        --set t5.num_layers="$layers" --set t5.d_ff="$d_ff" --set learning_rate.peak=2e-3
}

# A model of digits for one encoder, trained as the bundled one is. Then 500 images of each kind of captions.
drawn() {
    name=$1 seed=$2 dim=$3
    shift 3
    finished configs/mnist.toml "$name-$seed" --set seed="$seed" --set unet.text.dim="$dim" "$@"
    [ -e "$runs/$name-$seed/eval.json" ] ||
        "$imagen" eval "$runs/$name-$seed" --samples 500 --steps 20 --device "$device" --threads 1 --quiet
}

# Several at a time, with one thread each: a step of a small network does not fill two cores, or a GPU.
pids=
# `wait` alone would not say that one of them failed.
all() {
    for pid in $pids; do wait "$pid"; done
    pids=
}
pretrained t5-nano 32 16 2 2 64 & pids="$pids $!"
pretrained t5-micro 64 16 4 4 128 & pids="$pids $!"
all
for seed in 0 1; do
    drawn hashed-words "$seed" 128 --set 'text={encoder="hashed-words",dim=128}' & pids="$pids $!"
    drawn t5-nano "$seed" 32 --set text.model="$runs/t5-nano" & pids="$pids $!"
    drawn t5-micro "$seed" 64 --set text.model="$runs/t5-micro" & pids="$pids $!"
    drawn t5-mini "$seed" 128 & pids="$pids $!"
    all
done

# One line a model: its name, and what `imagen eval` found.
for report in "$runs"/*/eval.json; do
    name=$(basename "$(dirname "$report")")
    printf '{"model": "%s", "report": %s}\n' "$name" "$(tr -d '\n' <"$report" | sed 's/  */ /g')"
done >"$runs/results.jsonl"
