#!/bin/sh
# Dense against sparse encoders: static, SET and RigL at three densities, and SET and RigL against static at each; run again, it
# goes on where it was.
# usage: benchmarks/sparse/study.sh OUT SHARDS      (LIMTR: the command; OPTIONS: further options of limtr compare)
set -eu
limtr=${LIMTR:-limtr}
mkdir -p "$1"
shards=$(cd "$2" && pwd)
cd "$1"

variant() { # NAME, then lines below `train:`
  {
    echo "name: $1"
    cat <<END
train:
  preset: tiny
  steps: 800
  batch_size: 2
  mirror: 0.5
  validate_every: 0
  validation_scenes: 8
  licence: "none: simulated scenes"
END
    shift
    for line in "$@"; do echo "  $line"; done
  } >"$file"
}

files=dense.yaml
file=dense.yaml
variant dense
for density in 0.5 0.2 0.1; do
  for method in static set rigl; do
    file=$method-$density.yaml
    files="$files $file"
    variant "$method $density" "sparsity: {method: $method, density: $density}"
  done
done
$limtr compare --config $files --seeds 5 --data "$shards" --out comparison ${OPTIONS:-}
for density in 0.5 0.2 0.1; do # the same runs, seen from static
  mkdir -p "at-$density"
  ln -sfn ../comparison/runs "at-$density/runs"
  $limtr compare --config static-$density.yaml set-$density.yaml rigl-$density.yaml --seeds 5 --data "$shards" --out "at-$density" ${OPTIONS:-}
done
