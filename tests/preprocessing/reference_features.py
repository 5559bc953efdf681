"""MTR's sample restated step by step in NumPy on float32 world coordinates: a second opinion for tests of features."""

from __future__ import annotations

from typing import Any

import numpy as np

TYPES = ("TYPE_UNSET", "TYPE_VEHICLE", "TYPE_PEDESTRIAN", "TYPE_CYCLIST", "TYPE_OTHER")
FIELDS = ("center_x", "center_y", "center_z", "length", "width", "height", "heading", "velocity_x", "velocity_y", "valid")


def reference_features(message: Any, *, num_polylines: int = 768) -> dict[str, np.ndarray]:
    """The arrays of a features golden file for a Scenario message whose map has lanes only."""
    world = np.array([[[getattr(state, name) for name in FIELDS] for state in track.states] for track in message.tracks])
    world = world.astype(np.float32)
    points, chunks = lane_points(message), []
    gaps = np.linalg.norm(np.diff(points[:, :2], axis=0), axis=1) > 1.0
    for run in np.split(points, np.flatnonzero(gaps) + 1):
        chunks += [run[start : start + 20] for start in range(0, len(run), 20)]
    context = [row for row, track in enumerate(world) if track[:11, 9].any()]
    centers = [item.track_index for item in message.tracks_to_predict]
    arrays: dict[str, np.ndarray] = {
        "scenario_id": np.array([message.scenario_id] * len(centers)),
        "world_trajs": world,
        "all_polylines": points,
        "obj_ids": np.array([message.tracks[row].id for row in context]),
        "obj_types": np.array([TYPES[message.tracks[row].object_type] for row in context]),
        "center_objects_id": np.array([message.tracks[row].id for row in centers]),
        "center_objects_type": np.array([TYPES[message.tracks[row].object_type] for row in centers]),
        "center_objects_world": world[centers, 10],
        "center_gt_trajs_src": world[centers],
        "track_index_to_predict": np.array([context.index(row) for row in centers]),
    }
    samples = [one_center(message, world, context, center, chunks, num_polylines) for center in centers]
    arrays.update({name: np.stack([sample[name] for sample in samples]) for name in samples[0]})
    return arrays


def lane_points(message: Any) -> np.ndarray:
    """(M, 7) points of all lanes with directions and type."""
    lanes = []
    for feature in message.map_features:
        xyz = np.array([[point.x, point.y, point.z] for point in feature.lane.polyline])
        step = np.diff(xyz, axis=0, prepend=xyz[:1])
        direction = step / np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-6)
        lanes.append(np.hstack((xyz, direction, np.full((len(xyz), 1), feature.lane.type or -1))))
    return np.concatenate(lanes).astype(np.float32)


def one_center(
    message: Any, world: np.ndarray, context: list[int], center: int, chunks: list[np.ndarray], num_polylines: int
) -> dict[str, np.ndarray]:
    """The sample of one centre agent."""
    zero, heading = world[center, 10, :3], world[center, 10, 6]
    turn = np.array([[np.cos(heading), -np.sin(heading)], [np.sin(heading), np.cos(heading)]], dtype=np.float32)
    history = np.zeros((len(context), 11, 29), np.float32)
    future = np.zeros((len(context), 80, 4), np.float32)
    last = np.zeros((len(context), 3), np.float32)
    for place, row in enumerate(context):
        velocity = np.where(world[row, :, 9:] > 0, world[row, :, 7:9], 0.0) @ turn
        for step in range(91):
            state = world[row, step]
            if not state[9]:
                continue
            xy = (state[:2] - zero[:2]) @ turn
            if step > 10:
                future[place, step - 11] = [*xy, *velocity[step]]
                continue
            last[place] = [*xy, state[2] - zero[2]]
            kind = message.tracks[row].object_type
            flags = [kind == 1, 0, kind == 3, row == center, row == message.sdc_track_index]
            clock = [*np.eye(11)[step], message.timestamps_seconds[step]]
            angle = state[6] - heading
            before = max(step, 1)
            jolt = (velocity[before] - velocity[before - 1]) / 0.1
            history[place, step] = [
                *last[place],
                *state[3:6],
                *flags,
                *clock,
                np.sin(angle),
                np.cos(angle),
                *velocity[step],
                *jolt,
            ]
    valid = world[context, :, 9] > 0
    own = context.index(center)
    ends = np.flatnonzero(valid[own, 11:])
    return {
        "obj_trajs": history,
        "obj_trajs_mask": valid[:, :11],
        "obj_trajs_pos": history[..., :3],
        "obj_trajs_last_pos": last,
        "obj_trajs_future_state": future,
        "obj_trajs_future_mask": valid[:, 11:].astype(np.float32),
        "center_gt_trajs": future[own],
        "center_gt_trajs_mask": valid[own, 11:].astype(np.float32),
        "center_gt_final_valid_idx": np.float32(ends[-1] if len(ends) else 0),
        **nearest_chunks(chunks, zero, turn, num_polylines),
    }


def nearest_chunks(chunks: list[np.ndarray], zero: np.ndarray, turn: np.ndarray, number: int) -> dict[str, np.ndarray]:
    """Map arrays of one centre agent, nearest first."""
    focus = zero[:2] + turn @ np.array([30.0, 0.0], np.float32)
    distance = [float(np.linalg.norm(chunk[:, :2].mean(axis=0) - focus)) for chunk in chunks]
    order = np.argsort(distance, kind="stable")[:number]
    polylines = np.zeros((len(order), 20, 9), np.float32)
    mask = np.zeros((len(order), 20), np.bool_)
    for place, index in enumerate(order):
        chunk = chunks[index]
        xy = (chunk[:, :2] - zero[:2]) @ turn
        height, direction = chunk[:, 2:3] - zero[2], chunk[:, 3:5] @ turn
        before = np.concatenate((xy[:1], xy[:-1]))
        polylines[place, : len(chunk)] = np.hstack((xy, height, direction, chunk[:, 5:7], before))
        mask[place, : len(chunk)] = True
    center = polylines[..., :3].sum(axis=1) / mask.sum(axis=1, keepdims=True)
    return {"map_polylines": polylines, "map_polylines_mask": mask, "map_polylines_center": center}
