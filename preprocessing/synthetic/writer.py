"""`limtr synthesize`: simulated scenes in Waymo's own files, on all cores, resumable."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from limtr.progress import Advance, progress
from limtr.run_report import as_plain, write_report
from limtr.scene import NUM_FUTURE_STEPS, NUM_HISTORY_STEPS
from preprocessing.synthetic.output_folder import OutputFolder, Shard, plan_shards
from preprocessing.synthetic.scan_geometry import SensorConfig
from preprocessing.synthetic.scene_job import SceneConfig, SceneJob, make_scene, scenario_id, start_worker
from preprocessing.synthetic.simulate import SimulationConfig
from preprocessing.synthetic.synthesis_report import report_lines, summarise
from preprocessing.synthetic.visibility import VisibilityConfig

SIMULATOR_VERSION = 2
"""Part of the folder's configuration: raise it when the same options give other scenes."""
_WOMD_TOP_COLUMNS, _SMALL_TOP_COLUMNS = 2650, 1325
# With twice the beams people are tracked as far as vehicles, and less of a body is enough.
_WOMD_VISIBILITY = VisibilityConfig(range_m=78.0, people_range_m=78.0, appear_share=0.15, keep_share=0.06)


@dataclass(frozen=True, kw_only=True)
class SynthesizeConfig:
    """Options of `limtr synthesize`."""

    out: Path
    """Folder to write: scenario/<split>/ and lidar/<split>/ as in WOMD."""
    scenes: int = 200
    """Scenes for training and validation together, at least one each."""
    validation_scenes: int | None = None
    """How many of them are for validation; default: one in five."""
    seed: int = 0
    """Seed; scene i depends on the seed and i alone."""
    size: Literal["small", "womd"] = "small"
    """small: the demo's scenes; womd: as many tracks, map points and beams as real ones have."""
    cue_lead: float = 2.0
    """Seconds by which heads, torsos and front wheels turn ahead of the path; 0: no cue."""
    test_scenes: int = 0
    """Further scenes for a testing split, whose motion records end at the current step."""
    workers: int = 0
    """Processes; 0: one per available CPU core. The scenes do not depend on it."""
    top_columns: int | None = None
    """Columns of the TOP laser's 64 rows; default 1325, with --size womd 2650."""
    side_shape: tuple[int, int] = (60, 200)
    """Rows and columns of each of the four side lasers (Waymo: 200 600)."""
    range_noise: float = 0.015
    """Standard deviation of measured ranges in metres."""
    scenes_per_shard: int = 20
    """Most scenes in one motion file."""

    def __post_init__(self) -> None:
        """Refuse what cannot be made."""
        if self.scenes < 2:
            raise ValueError(f"--scenes must be at least 2 (one for training, one for validation), is {self.scenes}")
        if self.validation_scenes is not None and not 1 <= self.validation_scenes < self.scenes:
            raise ValueError(
                f"--validation-scenes must be at least 1 and leave one of the {self.scenes} --scenes for training, is "
                f"{self.validation_scenes}"
            )
        for name in ("seed", "test_scenes", "workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name.replace('_', '-')} must not be negative, is {getattr(self, name)}")
        if self.scenes_per_shard < 1:
            raise ValueError(f"--scenes-per-shard must be at least 1, is {self.scenes_per_shard}")

    @property
    def scene_config(self) -> SceneConfig:
        """What shapes each scene."""
        columns = self.top_columns
        if columns is None:
            columns = _WOMD_TOP_COLUMNS if self.size == "womd" else _SMALL_TOP_COLUMNS
        return SceneConfig(
            simulation=SimulationConfig(size=self.size, cue_lead_s=self.cue_lead),
            visibility=_WOMD_VISIBILITY if self.size == "womd" else VisibilityConfig(),
            sensor=SensorConfig(top_columns=columns, side_shape=self.side_shape, range_noise_m=self.range_noise),
        )

    @property
    def split_sizes(self) -> dict[str, int]:
        """Scenes of each split, in the order of their indices."""
        training = min(max(round(0.8 * self.scenes), 1), self.scenes - 1)
        if self.validation_scenes is not None:
            training = self.scenes - self.validation_scenes
        return {"training": training, "validation": self.scenes - training, "testing": self.test_scenes}


def run(config: SynthesizeConfig) -> int:
    """Make all scenes that are missing, assemble the shards, write report.json; return 0.

    Raises:
        ValueError: the folder holds something else, or another run is writing to it.
        OSError: the disk is full or not writable, or a worker died; what is finished stays and is not made again.
    """
    folder = OutputFolder(config.out)
    fingerprint = _fingerprint(config)  # before anything is written: it refuses sensors that cannot be
    with folder.alone():
        folder.claim(fingerprint)
        return _fill(config, folder)


def _fill(config: SynthesizeConfig, folder: OutputFolder) -> int:
    """Make, assemble and report."""
    shards: list[Shard] = []
    index_of: dict[str, int] = {}
    first = 0
    for split, count in config.split_sizes.items():
        ids = [scenario_id(config.seed, index) for index in range(first, first + count)]
        index_of.update(zip(ids, range(first, first + count), strict=True))
        shards += plan_shards(split, ids, config.scenes_per_shard)
        first += count
    jobs = [
        SceneJob(
            seed=config.seed,
            index=index_of[place.scenario_id],
            place=place,
            num_steps=NUM_HISTORY_STEPS + (0 if place.split == "testing" else NUM_FUTURE_STEPS),
            config=config.scene_config,
        )
        for shard in shards
        for place in folder.missing(shard)
    ]
    with progress("synthesize", first, "scenes") as advance:
        if len(jobs) < first:
            advance(first - len(jobs), "found from an earlier run")
        _make_all(jobs, folder, config.workers or len(os.sched_getaffinity(0)), advance)
    for shard in shards:
        folder.finish(shard)
    stats = {
        split: folder.read_stats(place for shard in shards if shard.split == split for place in shard.scenes)
        for split, count in config.split_sizes.items()
        if count
    }
    results = summarise(stats, cue_lead_s=config.cue_lead)
    results["scenes_made_in_this_run"] = len(jobs)
    path = write_report(config.out, verb="synthesize", inputs=[], config=config, seed=config.seed, results=results)
    print("\n".join([*report_lines(results), f"{config.out}: records and {path.name}"]))
    return 0


def _fingerprint(config: SynthesizeConfig) -> dict[str, Any]:
    """What decides on the bytes: every option but where and how fast, with the defaults resolved."""
    options = {
        field.name: as_plain(getattr(config, field.name))
        for field in dataclasses.fields(config)
        if field.name not in ("out", "workers")
    }
    options["top_columns"] = config.scene_config.sensor.top_columns
    return {**options, "simulator_version": SIMULATOR_VERSION}


def _make_all(jobs: list[SceneJob], folder: OutputFolder, workers: int, advance: Advance) -> None:
    """Run the jobs in this process (one worker) or in fresh ones; the bytes are the same."""
    if min(workers, len(jobs)) <= 1:
        for job in jobs:
            make_scene(job, folder)
            advance(note=job.place.scenario_id)
        return
    # Fresh processes: forked ones would share the state of libraries that run threads.
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=start_worker)
    with _one_thread_each():
        try:
            futures = {pool.submit(make_scene, job, folder): job for job in jobs}
            for future in concurrent.futures.as_completed(futures):
                future.result()
                advance(note=futures[future].place.scenario_id)
        except BrokenProcessPool as error:
            raise OSError(
                "a worker process died, perhaps for want of memory; run the same command again with fewer --workers: "
                "finished scenes are kept"
            ) from error
        finally:
            # After Ctrl-C or a full disk the scenes under way end and the others are not begun.
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let processes that start in the block use one thread each: their libraries read this when they are loaded."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
