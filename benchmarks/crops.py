"""Range images to LiDAR crops: only the pixels that can matter, against all pixels, against Waymo's way of decoding with lists.

    python benchmarks/crops.py FOLDER [scenes]

FOLDER is WOMD's layout: scenario/training and lidar/training, such as `limtr synthesize --size womd --side-shape 200 600`
writes. All three ways give the same crops (checked), in one process, on one thread:

- ours: `preprocessing.womd.crops.crop_lidar`;
- all pixels: a vectorised decoder (held here) and our geometry turn every pixel of every return into a point, then the boxes
  are asked by NumPy in the plain way (held here too: what makes our own box tests faster must not make the baseline faster);
- lists: the same after a decoder that expands run lengths and differences number by number in Python lists, as Waymo's
  public decoder does.
"""

from __future__ import annotations

import itertools
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from limtr.scene import NUM_HISTORY_STEPS, LidarCrops
from preprocessing.allocator import keep_freed_memory
from preprocessing.womd import lidar, schema
from preprocessing.womd.boxes import read_boxes
from preprocessing.womd.crops import CropConfig, crop_lidar
from preprocessing.womd.lidar import merge_lidar, open_frame, vehicle_from_world
from preprocessing.womd.misalignment import MAX_SHIFT, ShiftProbe, probed_frames
from preprocessing.womd.range_image import QuantisedImage
from preprocessing.womd.scenario import parse_scenario
from preprocessing.womd.tfrecord import iter_records
from preprocessing.womd.varint import decode_varints, unzigzag

ROUNDS = 3
ALL_POINTS = np.iinfo(np.int64).max


def vector_decoder(data: bytes) -> QuantisedImage:
    """Range images with NumPy, in the plain way: run lengths repeated, differences summed up, all of it in 64 bits."""
    message = schema.PackedDeltaData.FromString(zlib.decompress(data))
    runs = decode_varints(message.mask).astype(np.int64)
    filled = np.repeat(np.arange(len(runs)) % 2 == 0, runs)
    values = np.zeros(len(filled), dtype=np.int64)
    values[filled] = np.cumsum(unzigzag(decode_varints(message.residual)))
    height, width, channels = message.metadata.shape
    return QuantisedImage(
        values=values.reshape(channels, height, width),
        precision=np.array(message.metadata.quant_precision, dtype=np.float64),
    )


def list_decoder(data: bytes) -> QuantisedImage:
    """Range images with lists: one entry for every pixel."""
    message = schema.DeltaEncodedData.FromString(zlib.decompress(data))
    is_filled: list[bool] = []
    filled = True
    for run in message.mask:
        is_filled += [filled] * run
        filled = not filled
    values = [0] * len(is_filled)
    number, residual = 0, iter(message.residual)
    for place, there in enumerate(is_filled):
        if there:
            number += next(residual)
            values[place] = number
    height, width, channels = message.metadata.shape
    return QuantisedImage(
        values=np.array(values, dtype=np.int64).reshape(channels, height, width),
        precision=np.array(message.metadata.quant_precision, dtype=np.float64),
    )


def crops_of_all_points(scenario: Any, margin_m: float, decoder: Callable[[bytes], QuantisedImage]) -> dict[str, Any]:
    """Every pixel a point, every point asked of every box; the alignment of boxes and LiDAR from the same points."""
    rows = [target.track_index for target in scenario.tracks_to_predict]
    boxes = read_boxes(scenario, rows, NUM_HISTORY_STEPS + MAX_SHIFT).grown(margin_m)
    probe, crops = ShiftProbe(boxes), {}
    frames = scenario.compressed_frame_laser_data
    before = lidar.open_image  # type: ignore[attr-defined]
    lidar.open_image = decoder  # type: ignore[attr-defined]
    try:
        for step, frame in enumerate(frames):
            returns = [scan.all_points(image) for scan in open_frame(frame) for image in scan.returns]
            points, features = (np.concatenate(parts) for parts in zip(*returns, strict=True))
            from_world = vehicle_from_world(frame)
            if step in probed_frames(len(frames)):
                probe.add_frame(step, points, from_world)
            moved = boxes.moved(from_world)
            for track in np.flatnonzero(boxes.valid[:, step]).tolist():
                x, y, z = (points[:, axis] - moved.center_m[track, step, axis] for axis in range(3))
                cos, sin = np.cos(moved.heading_rad[track, step]), np.sin(moved.heading_rad[track, step])
                box_points = np.stack([cos * x + sin * y, cos * y - sin * x, z])
                held = (np.abs(box_points) <= moved.half_size_m[track, step, :, None]).all(axis=0)
                crops[track, step] = np.concatenate([box_points[:, held].T, features[held]], axis=1)
    finally:
        lidar.open_image = before  # type: ignore[attr-defined]
    return {"crops": crops, "best_shift": probe.best_shift()}


def require_same(ours: LidarCrops, plain: dict[str, Any]) -> int:
    """The number of points, after a comparison as sets."""
    assert ours.best_shift == plain["best_shift"]
    for track, step in itertools.product(range(ours.count.shape[0]), range(NUM_HISTORY_STEPS)):
        expected = plain["crops"].get((track, step), np.zeros((0, 6)))
        found = np.concatenate(ours.frame(track, step), axis=1)
        assert ours.count_in_box[track, step] == len(found) == len(expected)
        expected = expected.astype(np.float32)
        for array in (found, expected):
            array[:] = array[np.lexsort(np.round(array.T.astype(np.float64), 3))]
        np.testing.assert_allclose(found, expected, atol=2e-3)
    return int(ours.count.sum())


def seconds(work: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """CPU time of one call, and its result."""
    start = time.process_time()
    result = work(*arguments)
    return time.process_time() - start, result


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__)
        return 2
    keep_freed_memory()  # as preprocessing does
    folder, wanted = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2
    config = CropConfig(max_points=ALL_POINTS)
    files = sorted((folder / "scenario" / "training").glob("*.tfrecord*"))
    records = itertools.islice((data for file in files for _, data in iter_records(file)), wanted)
    times = []
    for data in records:
        scenario = parse_scenario(data, source=str(folder))
        path = folder / "lidar" / "training" / f"{scenario.scenario_id}.tfrecord"
        (_, lidar_data), *_ = iter_records(path)
        merge_lidar(scenario, parse_scenario(lidar_data, source=str(path)))
        shapes = {lidar.LASER_NAMES[scan.name]: scan.returns[0].values.shape[1:]  # type: ignore[union-attr]
                  for scan in open_frame(scenario.compressed_frame_laser_data[0])}  # fmt: skip
        for round_ in range(ROUNDS):
            ours_s, ours = seconds(crop_lidar, scenario, config)
            plain_s, plain = seconds(crops_of_all_points, scenario, config.margin_m, vector_decoder)
            lists_s = float("nan")
            if round_ == 0:
                lists_s, lists = seconds(crops_of_all_points, scenario, config.margin_m, list_decoder)
                num_points = require_same(ours, plain)
                require_same(ours, lists)
                print(
                    f"{scenario.scenario_id}: {len(scenario.tracks_to_predict)} targets, "
                    f"{len(scenario.compressed_frame_laser_data)} frames, {num_points} points in boxes, {shapes}"
                )
            times.append((ours_s, plain_s, lists_s))
    ours_ms, plain_ms, lists_ms = 1e3 * np.nanmedian(np.array(times), axis=0)
    print(f"a scene: ours {ours_ms:.0f} ms, all pixels {plain_ms:.0f} ms, lists {lists_ms:.0f} ms; equal crops")
    print(f"ours against all pixels: {plain_ms / ours_ms:.1f} times as fast; against lists: {lists_ms / ours_ms:.1f} times")
    return 0


if __name__ == "__main__":
    sys.exit(main())
