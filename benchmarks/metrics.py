"""Our motion metrics against Waymo's op: time per scene as a ratio, equal numbers, streaming and merged, and memory.

    python benchmarks/metrics.py [scenes]

The baseline is the op in the oracle environment (`make oracle`), timed inside its own process, without starting it or moving
data. Ours is timed from the same arrays in memory to the final values, on one thread.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.accumulate import MotionMetrics
from evaluation.metric_config import CURRENT_STEP, NUM_TRACK_STEPS, TRACK_STEPS, MotionMetricsConfig
from evaluation.official import official_rows
from evaluation.op_input import op_arrays, op_config, rounded
from evaluation.oracle import ask_oracle
from evaluation.scenario_predictions import ScenarioPredictions
from limtr.files import read_json

NUM_TRACKS, NUM_PREDICTED, NUM_MODES = 64, 8, 6
REPEATS = 5
PARTS = 16
FULL_SET = 44_097
"""Scenes of WOMD's validation split."""


def random_scenario(seed: int) -> ScenarioPredictions:
    """Tracks that drive, walk and ride in curves through each other, with gaps, and predictions near the truth."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(1, 4, NUM_TRACKS)
    speed = rng.uniform(0, np.array([15.0, 2.0, 6.0])[kind - 1])
    time_s = (np.arange(NUM_TRACK_STEPS) - CURRENT_STEP) * 0.1
    heading = rng.uniform(-np.pi, np.pi, NUM_TRACKS)[:, None] + rng.normal(0, 0.15, NUM_TRACKS)[:, None] * time_s
    velocity = speed[:, None, None] * np.stack([np.cos(heading), np.sin(heading)], axis=-1)
    position = rng.uniform(-60, 60, (NUM_TRACKS, 1, 2)) + np.cumsum(velocity * 0.1, axis=1)
    size = np.array([[4.5, 1.9], [0.8, 0.8], [1.8, 0.8]])[kind - 1]
    states = np.concatenate([position, np.repeat(size[:, None], NUM_TRACK_STEPS, 1), heading[..., None], velocity], axis=-1)
    valid = rng.random((NUM_TRACKS, NUM_TRACK_STEPS)) > 0.1
    valid[:NUM_PREDICTED, CURRENT_STEP] = True
    truth = states[:NUM_PREDICTED, list(TRACK_STEPS), :2]
    drift = rng.normal(0, 1.0, (NUM_PREDICTED, NUM_MODES, 1, 2)) * np.linspace(0.2, 4.0, len(TRACK_STEPS))[:, None]
    scenario = ScenarioPredictions(
        scenario_id=f"random{seed}", track_type=kind, track_states=states, track_valid=valid,
        group_rows=np.arange(NUM_PREDICTED)[:, None], xy_m=(truth[:, None] + drift)[:, :, None],
        scores=rng.random((NUM_PREDICTED, NUM_MODES)),
    )  # fmt: skip
    return rounded(scenario)


def ours_streaming(scenarios: list[ScenarioPredictions]) -> dict[str, Any]:
    """One accumulator, scene after scene."""
    metrics = MotionMetrics()
    for scenario in scenarios:
        metrics.add(scenario)
    return metrics.compute()


def ours_merged(scenarios: list[ScenarioPredictions]) -> dict[str, Any]:
    """Many accumulators, as on many workers, merged in another order."""
    parts = [MotionMetrics() for _ in range(PARTS)]
    for index, scenario in enumerate(scenarios):
        parts[index % PARTS].add(scenario)
    whole = parts[-1]
    for part in parts[-2::-1]:
        whole.merge(part)
    return whole.compute()


def official(scenarios: list[ScenarioPredictions]) -> tuple[float, dict[str, dict[str, float]]]:
    """Seconds of the op (least of some runs) and its values."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "cases.npz", Path(folder) / "values.json"
        arrays: dict[str, Any] = {f"all/{name}": value for name, value in op_arrays(scenarios).items()}
        np.savez(source, config=np.array(json.dumps(op_config(MotionMetricsConfig()))), repeats=np.array(REPEATS), **arrays)
        ask_oracle("motion_metrics.py", source, target)
        content = read_json(target)
    return content["seconds"]["all"], content["values"]["all"]


def main() -> int:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    scenarios = [random_scenario(seed) for seed in range(number)]
    print(f"{number} scenes x {NUM_TRACKS} agents, {NUM_PREDICTED} predicted objects x {NUM_MODES} modes")
    op_s, op_values = official(scenarios)
    print(f"Waymo's op: {1e3 * op_s / number:.3f} ms a scene")
    results = {}
    for name, run in (("streaming", ours_streaming), ("merged", ours_merged)):
        times = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            results[name] = run(scenarios)
            times.append(time.perf_counter() - start)
        print(f"ours, {name}: {1e3 * min(times) / number:.3f} ms a scene, {op_s / min(times):.1f} times as fast as the op")
    metrics = MotionMetrics()
    for scenario in scenarios:
        metrics.add(scenario)
    rows = official_rows(metrics, op_values)
    largest = max(row.difference for row in rows)
    print(f"largest difference to the op in {len(rows)} numbers: {largest:.1e}; merged equals streaming: "
          f"{results['merged'] == results['streaming']}")  # fmt: skip
    size = sum(array.nbytes for array in metrics.state().values())
    print(f"state: {size / number:.0f} bytes a scene, {size / number * FULL_SET / 1e6:.0f} MB for {FULL_SET} scenes; "
          f"peak memory of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")  # fmt: skip
    return 0 if all(row.agrees for row in rows) and results["merged"] == results["streaming"] else 1


if __name__ == "__main__":
    sys.exit(main())
