"""LiDAR by Waymo's own decoder: `decode_lidar.py SCENARIOS.tfrecord OUTPUT.npz` (see `evaluation.verify_official`).

The output holds, for record r, frame f, laser l (LaserName) and return e: `r/f{f}_l{l}_xyz{e}` and `..._feat{e}` (n, 3) in the
vehicle frame, and `r/f{f}_l{l}_image{e}` (H, W, C), the decoded range image. Two holes of the official code are filled here: it
cannot read a laser without a second return, nor a TOP laser whose inclinations are given as a range.
"""

import sys
from typing import Any

import numpy as np
import tensorflow as tf
from waymo_open_dataset import dataset_pb2
from waymo_open_dataset.protos import compressed_lidar_pb2, scenario_pb2
from waymo_open_dataset.utils import range_image_utils, womd_lidar_utils
from waymo_open_dataset.utils.compression import delta_encoder


def decode_laser(
    laser: compressed_lidar_pb2.CompressedLaser, calibration: dataset_pb2.LaserCalibration, pose: tf.Tensor
) -> dict[str, np.ndarray]:
    """Points, features and range images of one laser; only what the record has."""
    images = {}
    for echo, part in ((1, laser.ri_return1), (2, laser.ri_return2)):
        if part.range_image_delta_compressed:
            images[echo] = delta_encoder.decompress(part.range_image_delta_compressed)
    arrays = {f"image{echo}": np.asarray(image) for echo, image in images.items()}
    if 1 not in images:
        return arrays
    whole = compressed_lidar_pb2.CompressedLaser()
    whole.CopyFrom(laser)
    if 2 not in images:
        whole.ri_return2.CopyFrom(laser.ri_return1)
    known = dataset_pb2.LaserCalibration()
    known.CopyFrom(calibration)
    if not known.beam_inclinations:
        limits = np.array([known.beam_inclination_min, known.beam_inclination_max])
        known.beam_inclinations.extend(np.asarray(range_image_utils.compute_inclination(limits, images[1].shape[0])).tolist())
    if laser.name == dataset_pb2.LaserName.TOP:
        found = womd_lidar_utils.extract_top_lidar_points(whole, pose, known)
    else:
        found = womd_lidar_utils.extract_side_lidar_points(whole, known)
    for echo in images:
        arrays[f"xyz{echo}"], arrays[f"feat{echo}"] = (np.asarray(part) for part in found[2 * echo - 2 : 2 * echo])
    return arrays


def main(source: str, target: str) -> None:
    """Decode every laser of every frame of every record."""
    arrays: dict[str, Any] = {}
    for record, data in enumerate(tf.data.TFRecordDataset(source).as_numpy_iterator()):
        scenario = scenario_pb2.Scenario.FromString(data)
        for index, frame in enumerate(scenario.compressed_frame_laser_data):
            pose = tf.convert_to_tensor(np.reshape(np.array(frame.pose.transform), [4, 4]))
            calibrations = {item.name: item for item in frame.laser_calibrations}
            for laser in frame.lasers:
                for name, array in decode_laser(laser, calibrations[laser.name], pose).items():
                    arrays[f"{record}/f{index}_l{laser.name}_{name}"] = array
    np.savez(target, **arrays)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
