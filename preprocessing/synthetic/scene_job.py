"""One scene from its seed to its records: the unit of work that the writer spreads over processes."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from preprocessing.open3d_loader import load_open3d
from preprocessing.synthetic.output_folder import OutputFolder, ScenePlace
from preprocessing.synthetic.protos import CURRENT_STEP, lidar_record, motion_record
from preprocessing.synthetic.scan_geometry import SensorConfig
from preprocessing.synthetic.sensor import scan
from preprocessing.synthetic.simulate import SimulationConfig, simulate
from preprocessing.synthetic.synthesis_report import SceneStats, TargetStats, overlapping_vehicle_frames
from preprocessing.synthetic.targets import select_targets, trajectory_class
from preprocessing.synthetic.visibility import VisibilityConfig, track_validity
from preprocessing.synthetic.world import World

NUM_FRAMES = CURRENT_STEP + 1
_LEVEL_1, _LEVEL_2 = 1, 2  # RequiredPrediction.DifficultyLevel


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
    """Everything besides seed and index that shapes a scene."""

    simulation: SimulationConfig
    sensor: SensorConfig
    visibility: VisibilityConfig = field(default_factory=VisibilityConfig)


@dataclass(frozen=True, kw_only=True)
class SceneJob:
    """Make the scene of (seed, index) and write it to its place."""

    seed: int
    index: int
    place: ScenePlace
    num_steps: int
    """Steps in the motion record: 91, or 11 for the test split."""
    config: SceneConfig


class StageClock:
    """CPU seconds of this thread by stage."""

    def __init__(self) -> None:
        self.cpu_s: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the block's time to stage `name`."""
        start = time.thread_time()
        yield
        self.cpu_s[name] = self.cpu_s.get(name, 0.0) + time.thread_time() - start


def scenario_id(seed: int, index: int) -> str:
    """Sixteen hexadecimal digits, as WOMD's ids are."""
    return hashlib.blake2b(f"limtr synthetic scene {seed} {index}".encode(), digest_size=8).hexdigest()


def start_worker() -> None:
    """Prepare a worker process: one thread each, and Ctrl-C is the parent's to handle."""
    os.environ["OMP_NUM_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def make_scene(job: SceneJob, folder: OutputFolder) -> SceneStats:
    """Simulate, look, scan, encode and write one scene; the same job gives the same bytes anywhere.

    Raises:
        OSError: as the file system says it; nothing half-written is left.
    """
    load_open3d()  # takes seconds once per process, and no scene's cost
    clock = StageClock()
    root = np.random.SeedSequence([job.seed, job.index, 1])
    tracks_seed, scan_seed, ids_seed, targets_seed = root.spawn(4)
    with clock.stage("simulate"):
        world = replace(simulate(job.seed, job.index, job.config.simulation), scenario_id=job.place.scenario_id)
    with clock.stage("visibility"):
        valid = track_validity(world, job.config.visibility, tracks_seed)
        targets = select_targets(world, valid, int(targets_seed.generate_state(1)[0]))
    with clock.stage("cast"):
        frames = scan(world, range(NUM_FRAMES), job.config.sensor, scan_seed)
    with clock.stage("encode"):
        lidar = lidar_record(world.scenario_id, frames)
        motion = motion_record(
            world,
            valid,
            targets,
            num_steps=job.num_steps,
            difficulty=[_LEVEL_1 if valid[row, :NUM_FRAMES].all() else _LEVEL_2 for row in targets],
            track_ids=_track_ids(len(world.kind), ids_seed),
        )
    first = [int((image.first[..., 0] > 0).sum()) for frame in frames for image in frame.images]
    second = [int((image.second[..., 0] > 0).sum()) for frame in frames for image in frame.images]
    with clock.stage("write"):
        # The statistics come last: where they are, the scene is whole.
        folder.write_scene(job.place, motion=motion, lidar=lidar)
    vehicle_frames, overlapping = overlapping_vehicle_frames(world)
    stats = SceneStats(
        index=job.index,
        layout=world.layout,
        num_tracks=int(valid[:, : job.num_steps].any(axis=1).sum()),
        num_map_points=sum(len(feature.points_m) for feature in world.features),
        valid_share=float(valid[valid.any(axis=1)].mean()),
        targets=tuple(_target_stats(world, valid, row) for row in targets),
        num_points=sum(first),
        num_second_points=sum(second),
        num_bytes=len(motion) + len(lidar),
        vehicle_frames=vehicle_frames,
        overlapping_vehicle_frames=overlapping,
        cpu_s={name: round(seconds, 4) for name, seconds in clock.cpu_s.items()},
    )
    folder.write_stats(job.place, stats)
    return stats


def _target_stats(world: World, valid: npt.NDArray[np.bool_], row: int) -> TargetStats:
    return TargetStats(
        object_type=int(world.object_type[row]),
        trajectory_class=trajectory_class(world, valid, row),
        maneuver_step=int(world.maneuver_step[row]),
    )


def _track_ids(num_actors: int, seed: np.random.SeedSequence) -> list[int]:
    """Object ids with gaps, as a tracker that has seen more than this scene gives them."""
    ids: list[int] = np.sort(np.random.default_rng(seed).choice(20 * num_actors + 80, num_actors, replace=False) + 1).tolist()
    return ids
