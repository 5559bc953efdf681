"""Do the points of an agent tell where it will turn? A few shape features and ridge regression, without any network.

usage: python benchmarks/lidar/information.py SHARDS [SHARDS ...]

The features say how the head, the torso, the hips and the legs (slices of the box by height) of the last three frames lie
to the left or right: mean y and covariance of x and y. They are odd under mirroring, as a turn is. What is predicted is
the change of heading within the coming 2.5 s. Printed is the correlation of predictions with the truth in five-fold validation,
by class and number of points in the current frame; about 0 means that these features tell nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from limtr.scene import STATE_FIELDS, ObjectType, Scene
from preprocessing.shards import SceneSource

AHEAD_STEPS = 25
SLICES = ((0.36, 0.6), (0.2, 0.36), (0.0, 0.2), (-0.6, -0.2))
"""Of the box's height, from its centre: head, chest, belly, legs."""
BINS = ((1, 30), (30, 80), (80, 200), (200, 10_000))
FOLDS, RIDGE, LARGEST_TURN_RAD = 5, 10.0, 1.5
FEWEST = 60
HEADING, HEIGHT = STATE_FIELDS.index("heading"), STATE_FIELDS.index("height")


def examples(scene: Scene) -> Iterator[tuple[int, int, np.ndarray, float]]:
    """Class, points now, features and change of heading of every target that is known ahead."""
    assert scene.lidar is not None
    now = scene.current_step
    for position, track in enumerate(scene.tracks_to_predict.tolist()):
        later = [step for step in range(now + 10, now + AHEAD_STEPS + 1) if scene.track_valid[track, step]]
        if not scene.track_valid[track, now] or not later:
            continue
        heading = scene.track_states[track, :, HEADING]
        turn = (heading[later[-1]] - heading[now] + np.pi) % (2 * np.pi) - np.pi
        points = np.concatenate([scene.lidar.frame(position, frame)[0] for frame in range(now - 2, now + 1)])
        count = int(scene.lidar.count_in_box[position, now])
        yield int(scene.track_type[track]), count, features(points, float(scene.track_states[track, now, HEIGHT])), float(turn)


def features(points_m: np.ndarray, height_m: float) -> np.ndarray:
    """(8,) mean y and covariance of x and y of each slice; zeros where it holds fewer than four points."""
    found = []
    for low, high in SLICES:
        part = points_m[(points_m[:, 2] > low * height_m) & (points_m[:, 2] <= high * height_m)]
        found += [part[:, 1].mean(), np.cov(part[:, :2].T)[0, 1]] if len(part) > 3 else [0.0, 0.0]
    return np.array(found)


def cross_validated_correlation(inputs: np.ndarray, truth: np.ndarray) -> float:
    """Of ridge regression without an offset (a mirrored world turns the other way) with the truth."""
    inputs = np.clip(inputs / np.maximum(inputs.std(axis=0), 1e-9), -3.0, 3.0)
    fold = np.random.default_rng(0).permutation(len(truth)) % FOLDS
    predicted = np.zeros(len(truth))
    for number in range(FOLDS):
        seen = inputs[fold != number]
        weights = np.linalg.solve(seen.T @ seen + RIDGE * np.eye(seen.shape[1]), seen.T @ truth[fold != number])
        predicted[fold == number] = inputs[fold == number] @ weights
    return float(np.corrcoef(predicted, truth)[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path, nargs="+")
    for folder in parser.parse_args().shards:
        found = [item for split in ("train", "validation") for scene in SceneSource(folder, split) for item in examples(scene)]
        kinds, counts = (np.array([item[index] for item in found]) for index in (0, 1))
        inputs = np.stack([item[2] for item in found])
        turns = np.clip([item[3] for item in found], -LARGEST_TURN_RAD, LARGEST_TURN_RAD)
        print(f"{folder}: correlation with the change of heading within {AHEAD_STEPS / 10} s (number of agents)")
        for kind in (ObjectType.VEHICLE, ObjectType.PEDESTRIAN, ObjectType.CYCLIST):
            cells = []
            for low, high in BINS:
                chosen = (kinds == kind) & (counts >= low) & (counts < high)
                if chosen.sum() >= FEWEST:
                    value = cross_validated_correlation(inputs[chosen], turns[chosen])
                    cells.append(f"{low}-{high - 1} points {value:+.2f} ({chosen.sum()})")
            print(f"  {kind.name.lower():<10} {', '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
