#!/bin/sh
# Does LiDAR help? Data and comparisons for the leads of the simulator's cue; run again, it goes on where it was.
# usage: benchmarks/lidar/study.sh OUT [LEAD...]      (LIMTR: the command, OPTIONS: further options of limtr compare)
set -eu
out=$1
shift
here=$(dirname "$0")
limtr=${LIMTR:-limtr}
for lead in ${*:-2 0 1}; do
  $limtr synthesize --scenes 480 --validation-scenes 160 --seed 5 --cue-lead "$lead" --out "$out/lead$lead/raw"
  $limtr preprocess --input "$out/lead$lead/raw" --out "$out/lead$lead/shards" --points 512 --executor local
  $limtr intentions --data "$out/lead$lead/shards"
  $limtr compare --config "$here/mtr.yaml" "$here/limtr.yaml" --seeds 5 --classes pedestrian --data "$out/lead$lead/shards" \
    --out "$out/lead$lead/comparison" ${OPTIONS:-}
done
