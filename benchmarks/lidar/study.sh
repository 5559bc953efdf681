#!/bin/sh
# Does LiDAR help? Data, a common start and comparisons for the leads of the simulator's cue; run again, it goes on where it was.
# usage: benchmarks/lidar/study.sh OUT [LEAD...]      (LIMTR: the command, OPTIONS: further options of limtr compare)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
limtr=${LIMTR:-limtr}
mkdir -p "$1"
cd "$1"
shift
leads=${*:-2 0 1}
for lead in $leads; do
  $limtr synthesize --scenes 1700 --validation-scenes 200 --seed 5 --cue-lead "$lead" --out "lead$lead/raw"
  $limtr preprocess --input "lead$lead/raw" --out "lead$lead/shards" --points 512
  $limtr intentions --data "lead$lead/shards"
  # The common start sees no LiDAR: one for all leads.
  if [ ! -f base/done ]; then
    resume=$([ -f base/checkpoints/latest.txt ] && echo --resume || true)
    $limtr train --preset tiny --no-lidar --classes pedestrian --steps 4000 --batch-size 4 --mirror 0.5 --validate-every 0 \
      --validation-scenes 8 --seed 100 --licence "none: simulated scenes" --data "lead$lead/shards" --out base $resume
    touch base/done
  fi
  $limtr compare --config "$here/mtr.yaml" "$here/limtr.yaml" --seeds 5 --classes pedestrian --data "lead$lead/shards" \
    --out "lead$lead/comparison" ${OPTIONS:-}
done
