"""Waymo's motion metrics op on the cases of an .npz: `motion_metrics.py INPUT.npz OUTPUT.json` (see `evaluation.op_input`).

A case is a set of arrays `NAME/pred`, `NAME/score`, ...; `config` holds the configuration as JSON. The output maps each case to
`TYPE_VEHICLE_5` and the like (the number is the measurement step), and these to the values that the op returns.
"""

import json
import sys
from typing import Any

import numpy as np
import tensorflow as tf
from waymo_open_dataset.metrics.ops import py_metrics_ops
from waymo_open_dataset.protos import motion_metrics_pb2

TYPES = ("TYPE_VEHICLE", "TYPE_PEDESTRIAN", "TYPE_CYCLIST")
"""The order of the op's values; within a type they follow the measurement steps."""
OUTPUTS = ("min_ade", "min_fde", "miss_rate", "overlap_rate", "mean_average_precision")


def parse_config(text: str) -> motion_metrics_pb2.MotionMetricsConfig:
    """The op's configuration from JSON: its scalar fields, and `step_configurations` as a list of objects."""
    fields: dict[str, Any] = json.loads(text)
    steps = fields.pop("step_configurations")
    config = motion_metrics_pb2.MotionMetricsConfig(**fields)
    for step in steps:
        config.step_configurations.add(**step)
    return config


def measure(case: dict[str, np.ndarray], config: motion_metrics_pb2.MotionMetricsConfig) -> dict[str, dict[str, float]]:
    """The op's values for one case."""
    values = py_metrics_ops.motion_metrics(
        prediction_trajectory=tf.constant(case["pred"], tf.float32),
        prediction_score=tf.constant(case["score"], tf.float32),
        ground_truth_trajectory=tf.constant(case["gt"], tf.float32),
        ground_truth_is_valid=tf.constant(case["gt_valid"], tf.bool),
        prediction_ground_truth_indices=tf.constant(case["idx"], tf.int64),
        prediction_ground_truth_indices_mask=tf.constant(case["idx_mask"], tf.bool),
        object_type=tf.constant(case["otype"], tf.int64),
        object_id=tf.constant(case["oid"], tf.int64),
        scenario_id=tf.constant([str(name) for name in case["sid"]]),
        config=config.SerializeToString(),
    )
    keys = [f"{kind}_{step.measurement_step}" for kind in TYPES for step in config.step_configurations]
    columns = [np.asarray(column).tolist() for column in values]
    return {
        key: {name: float(column[row]) for name, column in zip(OUTPUTS, columns, strict=True)} for row, key in enumerate(keys)
    }


def main(source: str, target: str) -> None:
    """Measure every case of `source` and write the values to `target`."""
    with np.load(source, allow_pickle=False) as archive:
        config = parse_config(str(archive["config"]))
        cases: dict[str, dict[str, np.ndarray]] = {}
        for key in archive.files:
            name, _, array = key.rpartition("/")
            if name:
                cases.setdefault(name, {})[array] = archive[key]
    with open(target, "w") as handle:
        json.dump({name: measure(case, config) for name, case in cases.items()}, handle)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
