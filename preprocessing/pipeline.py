"""`limtr preprocess`: plan -> run (on Ray or in process) -> metadata -> report."""

from __future__ import annotations

import fcntl
import json
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from limtr.files import write_bytes
from limtr.progress import progress
from limtr.run_report import write_report
from preprocessing.executors import run_in_process, run_on_ray
from preprocessing.plan import Plan, make_plan
from preprocessing.preprocess_report import duplicate_entries, print_summary, summarise
from preprocessing.preprocess_task import ShardFailure, ShardResult, ShardSettings, ShardTask
from preprocessing.shard_metadata import Sidecar, read_sidecars, remove_dataset, remove_unfinished, write_dataset_metadata

QUARANTINE_FILE = "quarantine.jsonl"


@dataclass(frozen=True, kw_only=True)
class PreprocessConfig:
    """Options of `limtr preprocess`."""

    input: Path
    """Folder in WOMD's layout: scenario/SPLIT/*.tfrecord* and lidar/SPLIT/SCENARIO_ID.tfrecord, SPLIT out of training,
    validation, testing."""
    out: Path
    """Dataset folder with all its splits; run again to go on or to add splits."""
    lidar: Path | None = None
    """Folder with SPLIT/SCENARIO_ID.tfrecord where the LiDAR lies elsewhere than in INPUT/lidar."""
    points: int = 2048
    """LiDAR points kept per target and frame (a sampling that depends only on seed, scenario, agent and frame)."""
    margin_m: float = 0.15
    """How far the box of a target is grown on every side for its LiDAR points, in metres."""
    splits: tuple[Literal["train", "validation", "test"], ...] = ("train", "validation", "test")
    """Splits to make (of training, validation, testing)."""
    executor: Literal["ray", "local"] = "ray"
    """Ray tasks, or one shard after the other in this process; the files are the same."""
    ray_address: str | None = None
    """Address of a running Ray cluster, every machine of which sees the same folders; default: a Ray of its own."""
    workers: int | None = None
    """CPUs of Ray's own cluster; default: all of this machine."""
    seed: int = 0
    """Seed of the sampling of LiDAR points."""
    overwrite: bool = False
    """Delete the shards in OUT first: needed to change points, margin or seed there."""

    def __post_init__(self) -> None:
        """Validate."""
        if self.points < 1:
            raise ValueError(f"points must be at least 1, is {self.points}")
        if not 0.0 <= self.margin_m < 10.0:
            raise ValueError(f"margin_m must be 0 or more and below 10 m, is {self.margin_m}")
        if not self.splits:
            raise ValueError("splits must name at least one split")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers must be at least 1, is {self.workers}")

    @property
    def settings(self) -> ShardSettings:
        """The part that decides what is in a shard."""
        return ShardSettings(max_points=self.points, margin_m=self.margin_m, seed=self.seed)


def run(config: PreprocessConfig) -> int:
    """Make what is missing; return 0 only if every record of every motion shard of the chosen splits is in its shard."""
    _warn_about_ignored(config)
    config.out.mkdir(parents=True, exist_ok=True)
    with only_run(config.out):
        # Whole paths: a Ray worker may stand in another folder.
        plan = make_plan(
            source=config.input.absolute(),
            out=config.out.absolute(),
            lidar=config.lidar.absolute() if config.lidar else None,
            splits=config.splits,
            settings=config.settings,
            anew=config.overwrite,
        )
        if config.overwrite:  # after the plan: a wrong --input must not cost the dataset
            removed = remove_dataset(config.out)
            print(f"--overwrite: removed {removed} files from {config.out}")
        for path in remove_unfinished(config.out):
            print(f"removed {path}, left by an interrupted run")
        for note in plan.notes:
            print(note)
        print(f"{len(plan.tasks)} motion shards, {len(plan.tasks) - len(plan.todo)} already done")
        start = time.monotonic()
        try:
            results, failures = execute(plan.todo, config)
        finally:
            # Finished shards are of use whatever became of the others; a worker that was killed left its temporary file.
            remove_unfinished(config.out)
            sidecars = read_sidecars(config.out)
            if sidecars:
                write_dataset_metadata(config.out, sidecars)
        return finish(config, plan, sidecars, results, failures, time.monotonic() - start)


def execute(todo: Sequence[ShardTask], config: PreprocessConfig) -> tuple[list[ShardResult], list[ShardFailure]]:
    """Make the shards; a full disk ends it, any other failure lets the others go on."""
    results: list[ShardResult] = []
    failures: list[ShardFailure] = []
    if config.executor == "ray":
        outcomes = run_on_ray(todo, address=config.ray_address, workers=config.workers)
    else:
        outcomes = run_in_process(todo)
    with progress("preprocess", len(todo), "shards") as advance, closing(outcomes):
        for outcome in outcomes:
            if isinstance(outcome, ShardFailure):
                failures.append(outcome)
                print(f"failed: {outcome.task.source}: {outcome.error}")
                if outcome.disk_full:
                    break
            else:
                results.append(outcome)
            advance(1, note=f"{sum(result.rows for result in results)} scenes, {len(failures)} shards failed")
    return results, failures


def finish(
    config: PreprocessConfig,
    plan: Plan,
    sidecars: Sequence[Sidecar],
    results: Sequence[ShardResult],
    failures: Sequence[ShardFailure],
    seconds: float,
) -> int:
    """Quarantine list, report.json, table on the screen; the exit status."""
    duplicates = duplicate_entries(sidecars)
    quarantine = [entry for sidecar in sidecars for entry in sidecar.quarantine] + duplicates
    _write_quarantine(config.out / QUARANTINE_FILE, quarantine)
    summary = summarise(sidecars, quarantine)
    summary["this_run"] = {
        "shards": len(plan.tasks),
        "shards_done_before": len(plan.tasks) - len(plan.todo),
        "shards_made": len(results),
        "shards_failed": [{"source": str(item.task.source), "error": item.error, "details": item.details} for item in failures],
        "notes": list(plan.notes),
        "scenes": sum(result.rows for result in results),
        "seconds": round(seconds, 2),
    }
    write_report(config.out, verb="preprocess", inputs=[config.input], config=config, seed=config.seed, results=summary)
    print_summary(summary, config.out)
    planned = {(task.split, task.index) for task in plan.tasks}
    made = [sidecar for sidecar in sidecars if (sidecar.split, sidecar.index) in planned]
    bad = sum(len(sidecar.quarantine) for sidecar in made) + len(duplicates)
    missing = len(planned) - len(made)
    if bad:
        print(
            f"NOT WHOLE: {bad} bad records or LiDAR files, listed in {config.out / QUARANTINE_FILE}; all else is in the shards"
        )
    if missing:
        print(f"NOT WHOLE: {missing} of {len(planned)} shards are missing; run the same command again")
    return 1 if bad or missing else 0


def _write_quarantine(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    if entries:
        write_bytes(path, "".join(json.dumps(entry, sort_keys=True) + "\n" for entry in entries).encode())
    else:
        path.unlink(missing_ok=True)


def _warn_about_ignored(config: PreprocessConfig) -> None:
    if config.executor == "local" and (config.workers is not None or config.ray_address is not None):
        warnings.warn("--executor local works in this process: --workers and --ray-address are ignored", stacklevel=2)
    elif config.ray_address is not None and config.workers is not None:
        warnings.warn("--ray-address uses the CPUs of that cluster: --workers is ignored", stacklevel=2)


@contextmanager
def only_run(out: Path) -> Iterator[None]:
    """While the block runs, no other run may write into the folder.

    Raises:
        ValueError: another one is writing there.
    """
    # Two runs in one folder would sweep each other's temporary files; the lock goes when the process goes.
    with (out / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"{out}: another `limtr preprocess` is writing there; wait for it") from error
        yield
