"""`limtr verify features`: a recorded scenario as the predictor sees it, compared with what MTR's own pipeline makes of it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tyro.conf import Positional

from limtr.agent_batch import AgentBatch
from limtr.agent_features import HISTORY_CHANNELS
from limtr.agent_view import build_agent_batch
from limtr.batch import SceneBatch, collate
from limtr.config import ViewConfig
from limtr.conformance import Comparison, print_comparisons
from limtr.polylines import polyline_tensor
from limtr.scene import ObjectType, Scene
from preprocessing.polyline_sets import PolylineSet, boundary_ties, match_polylines
from preprocessing.polylines import cut_polylines
from preprocessing.shards import decode_scene, encode_scene
from preprocessing.womd.map_features import DRIVEWAY_TYPE
from preprocessing.womd.scenario import parse_scenario, scenario_to_scene
from preprocessing.womd.tfrecord import iter_records

TOLERANCE = 1e-3
BOUNDARY_SLACK_M = 0.01
"""How far MTR's float32 sums of world coordinates can shift a polyline's mean: ties nearer than this may fall either way."""

Arrays = dict[str, npt.NDArray[Any]]
CHANNEL_GROUPS = {
    "position": ("x", "y", "z"),
    "size": ("length", "width", "height"),
    "flags": tuple(name for name in HISTORY_CHANNELS if name.startswith("is_")),
    "time": ("time_s",),
    "heading": ("sin_heading", "cos_heading"),
    "velocity": ("vx", "vy"),
    "acceleration": ("ax", "ay"),
}


@dataclass(frozen=True, kw_only=True)
class VerifyFeaturesConfig:
    """Compare agent-centric features with a golden file; the scene goes through a shard record first."""

    golden: Positional[Path]
    """Golden file (.npz) with the arrays of MTR's pipeline for one scenario."""
    scenario: Path
    """Motion TFRecord file that holds the scenario."""
    reference_pedestrian_channel: bool = True
    """Expect MTR's quirk: the pedestrian channel of the type one-hot is always 0."""
    reference_gap_acceleration: bool = True
    """Expect MTR's quirk: accelerations across validity gaps count an invalid step as velocity 0."""


def run(config: VerifyFeaturesConfig) -> int:
    """Print every compared quantity; 0 only if all agree."""
    golden = read_golden(config.golden)
    scene = decode_scene(encode_scene(find_scene(config.scenario, golden_scenario(golden, config.golden))))
    view = ViewConfig(
        reference_pedestrian_channel=config.reference_pedestrian_channel,
        reference_gap_acceleration=config.reference_gap_acceleration,
    )
    golden_types = [golden[name][..., 6] for name in ("all_polylines", "map_polylines") if name in golden]
    if DRIVEWAY_TYPE in scene.feature_type and golden_types and not any(DRIVEWAY_TYPE in types for types in golden_types):
        print("the golden file knows no driveways (MTR cannot read them): compared without the scenario's driveways")
        scene = without_driveways(scene)
    comparisons = compare_features(scene, golden, view)
    compared = {item.name.split()[0] for item in comparisons}
    left_out = sorted(set(golden) - compared)
    if left_out:
        print(f"not compared, no counterpart known: {', '.join(left_out)}")
    return print_comparisons(comparisons)


def read_golden(path: Path) -> Arrays:
    """The arrays of a golden file.

    Raises:
        ValueError: it is no .npz file of plain arrays; the message names it.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a readable .npz file of plain arrays ({error})") from error


def golden_scenario(golden: Mapping[str, npt.NDArray[Any]], path: Path) -> str:
    """The one scenario id that the golden file speaks of.

    Raises:
        ValueError: it names none, or several.
    """
    ids = sorted(set(np.atleast_1d(golden.get("scenario_id", np.array([]))).tolist()))
    if len(ids) != 1:
        raise ValueError(f"{path}: scenario_id must name one scenario, names {ids}; give a features golden file")
    return str(ids[0])


def find_scene(path: Path, scenario_id: str) -> Scene:
    """The scene of one scenario of a motion file.

    Raises:
        ValueError: the file is damaged, or has no such scenario.
    """
    found = []
    for index, data in iter_records(path):
        source = f"{path}, record {index}"
        message = parse_scenario(data, source=source)
        if message.scenario_id == scenario_id:
            return scenario_to_scene(message, source=source)
        found.append(message.scenario_id)
    raise ValueError(f"{path}: no scenario {scenario_id!r} as the golden file asks for, only {found[:5]} ({len(found)} in all)")


def without_driveways(scene: Scene) -> Scene:
    """The scene with a map as releases of WOMD before driveways had it, cut anew."""
    kept = scene.feature_type != DRIVEWAY_TYPE
    points = scene.map_points_m[np.repeat(kept, scene.feature_length)]
    return replace(
        scene,
        map_points_m=points,
        feature_length=scene.feature_length[kept],
        feature_type=scene.feature_type[kept],
        feature_id=scene.feature_id[kept],
        polyline_length=cut_polylines(points + scene.origin_m),
    ).validate()


def compare_features(scene: Scene, golden: Mapping[str, npt.NDArray[Any]], view: ViewConfig) -> list[Comparison]:
    """Every known array of the golden file beside what `collate` and `build_agent_batch` make of the scene.

    Positions agree within 1e-3 m, or within 1.5 float32 steps of the world coordinates where those are coarser than that:
    MTR subtracts them in float32.
    """
    batch = collate([scene])
    agents = build_agent_batch(batch, view)
    world = _world_arrays(scene, batch)
    farthest = max(np.abs(world[name][..., :3]).max(initial=0.0) for name in ("world_trajs", "all_polylines"))
    tolerance = max(TOLERANCE, 1.5 * float(np.spacing(np.float32(farthest))))
    computed = {**_agent_arrays(agents), **world}
    comparisons: list[Comparison] = []
    for name, values in computed.items():
        if name in golden:
            comparisons.extend(_compare(name, values, golden[name], tolerance))
    if "obj_trajs" in golden:
        comparisons.extend(_compare_history(agents, golden["obj_trajs"], tolerance))
    if {"map_polylines", "map_polylines_mask", "map_polylines_center"} <= set(golden):
        comparisons.extend(_compare_polylines(batch, agents, golden, view, tolerance))
    return comparisons


def _agent_arrays(agents: AgentBatch) -> Arrays:
    arrays = {
        "obj_trajs_mask": agents.agent_history_mask.numpy(),
        "obj_trajs_pos": agents.agent_history[..., 0:3].numpy(),
        "obj_trajs_last_pos": agents.agent_last_position.numpy(),
        "track_index_to_predict": agents.center_index.numpy(),
    }
    futures = (agents.agent_future, agents.agent_future_mask, agents.center_future, agents.center_future_mask)
    names = ("obj_trajs_future_state", "obj_trajs_future_mask", "center_gt_trajs", "center_gt_trajs_mask")
    arrays.update({name: value.numpy() for name, value in zip(names, futures, strict=True) if value is not None})
    if agents.center_future_mask is not None:
        mask = agents.center_future_mask.numpy()
        arrays["center_gt_final_valid_idx"] = np.where(mask, np.arange(mask.shape[-1]), 0).max(axis=-1, initial=0)
    return arrays


def _world_arrays(scene: Scene, batch: SceneBatch) -> Arrays:
    """What MTR keeps in world coordinates, with the validity as the last channel of states."""
    states = scene.track_states.astype(np.float64)
    states[..., :3] += np.where(scene.track_valid[..., None], scene.origin_m, 0.0)
    world = np.concatenate((states, scene.track_valid[..., None]), axis=-1)
    center = batch.center_track.numpy()
    context = np.flatnonzero(scene.track_valid[:, : scene.current_step + 1].any(axis=-1))
    points, mask = polyline_tensor(scene)
    polylines = points[mask].astype(np.float64)
    polylines[:, :3] += scene.origin_m
    types = np.array([f"TYPE_{ObjectType(number).name}" for number in scene.track_type.tolist()])
    return {
        "scenario_id": np.array([scene.scenario_id] * len(center)),
        "world_trajs": world,
        "center_gt_trajs_src": world[center],
        "center_objects_world": world[center, scene.current_step],
        "center_objects_id": batch.center_object_id.numpy(),
        "center_objects_type": types[center],
        "obj_ids": scene.track_id[context],
        "obj_types": types[context],
        "all_polylines": polylines,
    }


def _compare(name: str, ours: npt.NDArray[Any], golden: npt.NDArray[Any], tolerance: float) -> Iterator[Comparison]:
    """Numbers by their largest difference, everything else by the number of differing entries."""
    if ours.shape != golden.shape:
        note = f"shape {golden.shape} expected, has {ours.shape}"
        yield Comparison(name=name, difference=float("inf"), tolerance=0.0, note=note)
    elif ours.dtype.kind in "bUi":
        yield Comparison(name=name, difference=float((ours != golden).sum()), tolerance=0.0, note="entries that differ")
    elif name in ("world_trajs", "center_gt_trajs_src", "center_objects_world"):
        # Records may hold leftovers in states that they call invalid; scenes do not.
        valid = golden[..., 9] != 0
        yield Comparison(name=f"{name} validity", difference=float((ours[..., 9] != golden[..., 9]).sum()), tolerance=0.0)
        yield Comparison(name=name, difference=_largest(ours[valid], golden[valid]), tolerance=tolerance, note="valid states")
    else:
        yield Comparison(name=name, difference=_largest(ours, golden), tolerance=tolerance)


def _compare_history(agents: AgentBatch, golden: npt.NDArray[Any], tolerance: float) -> Iterator[Comparison]:
    ours = agents.agent_history.numpy()
    if ours.shape != golden.shape:
        yield from _compare("obj_trajs", ours, golden, tolerance)
        return
    for group, names in CHANNEL_GROUPS.items():
        columns = [HISTORY_CHANNELS.index(name) for name in names]
        limit = tolerance if group == "position" else TOLERANCE
        difference = _largest(ours[..., columns], golden[..., columns])
        yield Comparison(name=f"obj_trajs {group}", difference=difference, tolerance=limit)


def _compare_polylines(
    batch: SceneBatch, agents: AgentBatch, golden: Mapping[str, npt.NDArray[Any]], view: ViewConfig, tolerance: float
) -> Iterator[Comparison]:
    """Each agent's polylines as a set; ones as far away as the farthest chosen one may be chosen or not."""
    parts = [golden[name] for name in ("map_polylines", "map_polylines_mask", "map_polylines_center")]
    num_centers = len(agents.polylines)
    fits = [part.shape[0] == num_centers for part in parts] + [parts[0].shape[2:] == tuple(agents.polylines.shape[2:])]
    if not all(fits):
        note = f"shapes {[part.shape for part in parts]} expected, has {tuple(agents.polylines.shape)} polylines"
        yield Comparison(name="map_polylines", difference=float("inf"), tolerance=tolerance, note=note)
        return
    everything = build_agent_batch(batch, replace(view, num_polylines=max(view.num_polylines, batch.polylines.shape[1])))
    points = centers = 0.0
    excused = wrong = matched = 0
    for row in range(num_centers):
        ours, all_ours = _polyline_set(agents, row), _polyline_set(everything, row)
        expected = PolylineSet.of(*(part[row] for part in parts))
        matching = match_polylines(ours, expected)
        points = float(np.maximum(points, matching.point_difference))
        centers = float(np.maximum(centers, matching.center_difference))
        matched += len(ours) - len(matching.only_first)
        ties = boundary_ties(ours, expected, all_ours, view.polyline_center_offset_m, BOUNDARY_SLACK_M)
        excused, wrong = excused + ties[0], wrong + ties[1]
    yield Comparison(name="map_polylines", difference=points, tolerance=tolerance, note=f"{matched} pairs matched by centre")
    yield Comparison(name="map_polylines_center", difference=centers, tolerance=tolerance)
    note = f"polylines without a partner; {excused} more lie within {BOUNDARY_SLACK_M} m of the farthest chosen one"
    yield Comparison(name="map_polylines_mask", difference=float(wrong), tolerance=0.0, note=note)


def _polyline_set(agents: AgentBatch, row: int) -> PolylineSet:
    return PolylineSet.of(agents.polylines[row], agents.polyline_mask[row], agents.polyline_center[row])


def _largest(ours: npt.NDArray[Any], golden: npt.NDArray[Any]) -> float:
    return float(np.abs(ours.astype(np.float64) - golden.astype(np.float64)).max(initial=0.0))
