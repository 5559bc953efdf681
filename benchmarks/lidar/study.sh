#!/bin/sh
# Does LiDAR help? Data, a common start and a comparison per lead of the simulator's cue and class; run again, it goes on where it was.
# usage: benchmarks/lidar/study.sh OUT LEAD CLASS...      (LIMTR, PYTHON: the commands; OPTIONS: further options of limtr compare)
# for example: study.sh OUT 2 pedestrian cyclist vehicle; study.sh OUT 0 pedestrian
set -eu
here=$(cd "$(dirname "$0")" && pwd)
limtr=${LIMTR:-limtr}
python=${PYTHON:-python}
mkdir -p "$1"
cd "$1"
lead=$2
shift 2
licence="none: simulated scenes"
[ -f "lead$lead/raw/report.json" ] ||
  $limtr synthesize --scenes 1700 --validation-scenes 200 --seed 5 --cue-lead "$lead" --out "lead$lead/raw"
[ -f "lead$lead/shards/intentions.json" ] || {
  $limtr preprocess --input "lead$lead/raw" --out "lead$lead/shards" --points 256
  $limtr intentions --data "lead$lead/shards"
}
# The common start sees no LiDAR: one for all leads and classes.
if [ ! -f base.done ]; then
  resume=$([ -f base/checkpoints/latest.txt ] && echo --resume || true)
  $limtr train --preset tiny --no-lidar --steps 4000 --batch-size 4 --mirror 0.5 --validate-every 0 --validation-scenes 8 \
    --seed 100 --licence "$licence" --data "lead$lead/shards" --out base $resume
  touch base.done
fi
for class in "$@"; do
  start=lead$lead/$class-start.safetensors
  [ -f "$start" ] ||
    $python "$here/encoder.py" "lead$lead/shards" --kind "$class" --start base --save "$start"
  for variant in mtr limtr; do
    sed "s/CLASS/$class/; s#START#$start#" "$here/$variant.yaml" > "lead$lead/$class-$variant.yaml"
  done
  $limtr compare --config "lead$lead/$class-mtr.yaml" "lead$lead/$class-limtr.yaml" --seeds 5 --classes "$class" --data "lead$lead/shards" \
    --out "lead$lead/$class" ${OPTIONS:-}
done
