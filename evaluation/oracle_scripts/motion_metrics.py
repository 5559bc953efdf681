"""Waymo's motion metrics op on the cases of an .npz: `motion_metrics.py INPUT.npz OUTPUT.json` (see `evaluation.op_input`).

A case is a set of arrays `NAME/pred`, `NAME/score`, ...; `config` holds the configuration as JSON, and `repeats`, if it is
there, how often to measure. `values` of the output maps each case to `TYPE_VEHICLE_5` and the like (the number is the
measurement step), and these to what the op returns; `seconds` holds the least time that the op took for each case.
"""

import json
import sys
import time
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


Values = dict[str, dict[str, float]]


def measure(case: dict[str, np.ndarray], config: motion_metrics_pb2.MotionMetricsConfig, repeats: int) -> tuple[Values, float]:
    """The op's values for one case, and the least of the seconds that it took."""
    inputs = {
        "prediction_trajectory": tf.constant(case["pred"], tf.float32),
        "prediction_score": tf.constant(case["score"], tf.float32),
        "ground_truth_trajectory": tf.constant(case["gt"], tf.float32),
        "ground_truth_is_valid": tf.constant(case["gt_valid"], tf.bool),
        "prediction_ground_truth_indices": tf.constant(case["idx"], tf.int64),
        "prediction_ground_truth_indices_mask": tf.constant(case["idx_mask"], tf.bool),
        "object_type": tf.constant(case["otype"], tf.int64),
        "object_id": tf.constant(case["oid"], tf.int64),
        "scenario_id": tf.constant([str(name) for name in case["sid"]]),
        "config": config.SerializeToString(),
    }
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        values = py_metrics_ops.motion_metrics(**inputs)
        times.append(time.perf_counter() - start)
    keys = [f"{kind}_{step.measurement_step}" for kind in TYPES for step in config.step_configurations]
    columns = [np.asarray(column).tolist() for column in values]
    rows = zip(*columns, strict=True)
    return {key: dict(zip(OUTPUTS, row, strict=True)) for key, row in zip(keys, rows, strict=True)}, min(times)


def main(source: str, target: str) -> None:
    """Measure every case of `source` and write the values to `target`."""
    with np.load(source, allow_pickle=False) as archive:
        config = parse_config(str(archive["config"]))
        repeats = int(archive["repeats"]) if "repeats" in archive.files else 1
        cases: dict[str, dict[str, np.ndarray]] = {}
        for key in archive.files:
            name, _, array = key.rpartition("/")
            if name:
                cases.setdefault(name, {})[array] = archive[key]
    found = {name: measure(case, config, repeats) for name, case in cases.items()}
    with open(target, "w") as handle:
        content = {
            "values": {name: values for name, (values, _) in found.items()},
            "seconds": {name: seconds for name, (_, seconds) in found.items()},
        }
        json.dump(content, handle)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
