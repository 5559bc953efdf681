#!/bin/sh
# Dense against sparse encoders (static, SET, RigL at three densities), and SET and RigL against static at each density: trained
# from new weights (OUT/new), and from one trained dense model whose largest weights stay (OUT/trained). Run again, it goes on
# where it was.
# usage: benchmarks/sparse/study.sh OUT SHARDS      (LIMTR: the command; OPTIONS: further options of limtr compare)
set -eu
limtr=${LIMTR:-limtr}
mkdir -p "$1"
shards=$(cd "$2" && pwd)
cd "$1"
licence="none: simulated scenes"
densities="0.5 0.2 0.1"

variant() { # FILE NAME STEPS, then lines below `train:`
  file=$1
  {
    echo "name: $2"
    cat <<END
train:
  preset: tiny
  steps: $3
  batch_size: 2
  mirror: 0.5
  validate_every: 0
  validation_scenes: 8
  licence: "$licence"
END
    shift 3
    for line in "$@"; do echo "  $line"; done
  } >"$file"
}

seen_from() { # FOLDER, then files: the runs of the comparison beside it, seen from the first of these
  mkdir -p "$1"
  ln -sfn ../comparison/runs "$1/runs"
  beside=$1
  shift
  $limtr compare --config "$@" --seeds 5 --data "$shards" --out "$beside" ${OPTIONS:-}
}

study() { # FOLDER STEPS SPARSITY, then lines for every variant
  folder=$1
  steps=$2
  sparsity=$3
  shift 3
  mkdir -p "$folder"
  files=$folder/dense.yaml
  variant "$folder/dense.yaml" dense "$steps" "$@"
  for density in $densities; do
    for method in static set rigl; do
      files="$files $folder/$method-$density.yaml"
      variant "$folder/$method-$density.yaml" "$method $density" "$steps" "$@" \
        "sparsity: {method: $method, density: $density$sparsity}"
    done
  done
  $limtr compare --config $files --seeds 5 --data "$shards" --out "$folder/comparison" ${OPTIONS:-}
  for density in $densities; do
    seen_from "$folder/at-$density" "$folder/static-$density.yaml" "$folder/set-$density.yaml" "$folder/rigl-$density.yaml"
  done
}

study new 800 ""
if [ ! -f dense.done ]; then
  resume=$([ -f dense/checkpoints/latest.txt ] && echo --resume || true)
  $limtr train --preset tiny --steps 3000 --batch-size 4 --mirror 0.5 --validate-every 0 --validation-scenes 8 --seed 100 \
    --licence "$licence" --data "$shards" --out dense $resume
  touch dense.done
fi
study trained 400 ", start: magnitude" "init_from: dense"

# What harms SET: links that begin with random weights (ITOP's begin with zero), or that so many change?
start="init_from: dense"
variant trained/itop-0.2.yaml "itop 0.2" 400 "$start" "sparsity: {method: itop, density: 0.2, start: magnitude}"
variant trained/set-0.2-few.yaml "set 0.2, 5 % at a time" 400 "$start" "sparsity: {method: set, density: 0.2, start: magnitude, rate: 0.05}"
seen_from trained/of-set trained/set-0.2.yaml trained/static-0.2.yaml trained/itop-0.2.yaml trained/set-0.2-few.yaml
