#!/usr/bin/env bash
# Everything that is measured on a GPU, in at most nine minutes, the most important figures first.
#
#     bash benchmarks/gpu.sh [--tiny]
#
# A step has a time limit, and its output is in $OUT (default: a new folder below /tmp) as soon
# as it is there; summary.md collects the tables. What does not fit into MINUTES (9) is skipped.
# --tiny does the same with tiny bases on a CPU, with a few steps and three times the limits, to try
# the script itself.
#
# SCRIPTS names a folder with diffusers' examples: `dreambooth/train_dreambooth_lora_*.py` and
# `text_to_image/train_text_to_image_lora*.py`. Without one, hublora is measured alone.
#
# A machine without internet: on one that has it, with the same Python and platform, collect wheels,
#
#     pip download -c constraints.txt -d wheels '.[test]' torch bitsandbytes torchao
#
# and copy the checkout with `wheels/` and the scripts. What is missing is installed from there
# before the first step (WHEELS names another folder); torch of the machine itself is kept.

set -u
cd "$(dirname "$0")/.."
OUT=${OUT:-$(mktemp -d /tmp/hublora-gpu.XXXXXX)}
WHEELS=${WHEELS:-wheels}
SCRIPTS=${SCRIPTS:-}
PYTHON=${PYTHON:-python}
TINY= UNET=sd15 XL=sdxl TIMES=1 FEW=
[ "${1:-}" = --tiny ] && TINY=tiny- UNET=tiny XL=tiny-xl TIMES=3 FEW="--steps 6 --warm-up 2"
MINUTES=${MINUTES:-$((9 * TIMES))}
END=$((SECONDS + 60 * MINUTES))
mkdir -p "$OUT"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

# The package and what it needs; nothing that is there is replaced.
if ! $PYTHON -c 'import hublora.workflows.train.train, diffusers, peft, accelerate' 2> "$OUT/imports.log"; then
    $PYTHON -m pip install --no-index --find-links "$WHEELS" -e '.[test]' > "$OUT/install.log" 2>&1 ||
        echo "The packages are missing, and $WHEELS has no wheels of them: see $OUT/install.log." >&2
fi

# step NAME SECONDS COMMAND…: runs the command within so many seconds, less if time runs out.
step() {
    local name=$1 limit=$(($2 * TIMES)) left=$((END - SECONDS)); shift 2
    if [ "$left" -lt 15 ]; then
        echo "- $name: skipped, no time is left" >> "$OUT/summary.md"
        return
    fi
    [ "$limit" -gt "$left" ] && limit=$left
    local began=$SECONDS
    timeout --kill-after=10 "$limit" "$@" > "$OUT/$name.md" 2> "$OUT/$name.log"
    local code=$?
    {
        echo; echo "## $name ($((SECONDS - began)) s, exit $code)"; echo
        if [ -s "$OUT/$name.md" ]; then cat "$OUT/$name.md"; else tail -n 3 "$OUT/$name.log"; fi
    } >> "$OUT/summary.md"
}

# reference FILE: the flag for a script of diffusers, nothing if it is not there.
reference() { [ -n "$SCRIPTS" ] && [ -f "$SCRIPTS/$1" ] && echo "--reference=$SCRIPTS/$1"; }

train() { echo $PYTHON benchmarks/train.py --rounds 1 $FEW "$@"; }
flow() { reference "dreambooth/train_dreambooth_lora_$1.py"; }

{
    echo "# On a GPU, $(date +%F)"; echo
    $PYTHON -c 'import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU", torch.__version__)'
} > "$OUT/summary.md" 2> /dev/null

# What makes a step fit into little memory; blocks wait for a GPU alone.
LITTLE="--gradient-checkpointing --set base.quantize=int8 $([ -z "$TINY" ] && echo --set base.offload=blocks)"

# Speed and memory at 1024, batch 1, rank 16, beside the scripts; then in the memory that people have.
step z-image 110 $(train --shape ${TINY}z-image $(flow z_image))
step klein-4b 80 $(train --shape ${TINY}klein-4b $(flow flux2_klein))
step sd15 60 $(train --shape $UNET $(reference text_to_image/train_text_to_image_lora.py))
step z-image-int8-blocks 60 $(train --shape ${TINY}z-image $LITTLE)
step klein-4b-int8-blocks 50 $(train --shape ${TINY}klein-4b $LITTLE)
step z-image-compiled 60 $(train --shape ${TINY}z-image --compile)
step sdxl 70 $(train --shape $XL $(reference text_to_image/train_text_to_image_lora_sdxl.py))
step run 60 $PYTHON benchmarks/run.py --device "$([ -n "$TINY" ] && echo cpu || echo cuda)"
step krea2-int8-blocks 90 $(train --shape ${TINY}krea2 $LITTLE)
step sd15-compiled 45 $(train --shape $UNET --compile)
step sd3 60 $(train --shape ${TINY}sd3 $(flow sd3))
step flux1 90 $(train --shape ${TINY}flux1 --gradient-checkpointing $(flow flux))
step krea2 90 $(train --shape ${TINY}krea2 --gradient-checkpointing $(flow krea2))
step qwen 120 $(train --shape ${TINY}qwen --gradient-checkpointing)

echo "The results are in $OUT/summary.md" >&2
