"""`limtr preprocess`: plan -> run (on Ray or in process) -> metadata -> report."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from limtr.files import write_bytes
from limtr.progress import progress
from limtr.run_report import write_report
from preprocessing.executors import run_in_process
from preprocessing.output_lock import holds, only_run, require_held
from preprocessing.plan import Plan, make_plan
from preprocessing.preprocess_report import duplicate_entries, print_summary, summarise
from preprocessing.preprocess_task import DISK_FULL, ShardFailure, ShardResult, ShardSettings, ShardTask
from preprocessing.ray_executor import Cluster, run_on_ray
from preprocessing.run_view import RunView
from preprocessing.shard_metadata import (
    Sidecar,
    read_sidecars,
    remove_dataset,
    remove_unfinished,
    sidecar_folder,
    sidecar_path,
    write_dataset_metadata,
)

QUARANTINE_FILE = "quarantine.jsonl"
SEEN_LIMIT_S = 120.0
"""NFS clients may show a list of files that is a minute old."""


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
    """Address (HOST:PORT) of a running Ray cluster, all machines of which see INPUT and OUT under the same paths and have the
    same versions; default: a Ray of its own on this machine."""
    workers: int | None = None
    """CPUs of Ray's own cluster; default: all of this machine."""
    memory_gib: float = 1.0
    """Memory in GiB that Ray sets aside for each worker (one worker is one CPU): no more workers start than fit."""
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
        if not self.memory_gib > 0:
            raise ValueError(f"memory_gib must be above 0, is {self.memory_gib}")

    @property
    def settings(self) -> ShardSettings:
        """The part that decides what is in a shard."""
        return ShardSettings(max_points=self.points, margin_m=self.margin_m, seed=self.seed)


def run(config: PreprocessConfig) -> int:
    """Make what is missing; return 0 only if every record of every motion shard of the chosen splits is in its shard."""
    _warn_about_ignored(config)
    config.out.mkdir(parents=True, exist_ok=True)
    with only_run(config.out) as lock, told_of_full_disk(config.out):
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
        view = RunView()
        sidecars: list[Sidecar] = []
        try:
            execute([replace(task, lock=lock) for task in plan.todo], config, view)
        finally:
            # Finished shards are of use whatever became of the others; a worker that was killed left its temporary file.
            if holds(config.out, lock):
                wait_until_seen(config.out, view.results)
                remove_unfinished(config.out)
                sidecars = read_sidecars(config.out)
                if sidecars:
                    write_dataset_metadata(config.out, sidecars)
        require_held(config.out, lock)
        return finish(config, plan, sidecars, view)


def execute(todo: Sequence[ShardTask], config: PreprocessConfig, view: RunView) -> None:
    """Make the shards; a full disk ends it, any other failure of a shard lets the others go on. `view` gets the outcomes."""
    with progress("preprocess", len(todo), "shards") as advance:

        def look(cluster: Cluster) -> None:
            where = f"{cluster.slots} workers on {cluster.nodes} nodes"
            view.cluster = where if cluster.slots else "no node with room for a worker: waiting for one"
            advance(0, note=view.note())

        if config.executor == "ray":
            outcomes = run_on_ray(
                todo,
                address=config.ray_address,
                workers=config.workers,
                memory_bytes=int(config.memory_gib * 2**30),
                look=look,
            )
        else:
            outcomes = run_in_process(todo)
        with closing(outcomes):
            for outcome in outcomes:
                if isinstance(outcome, ShardFailure):
                    view.failures.append(outcome)
                    print(f"failed: {outcome.task.source}: {outcome.error}")
                    if outcome.disk_full:
                        break
                else:
                    view.results.append(outcome)
                advance(1, note=view.note())


def finish(config: PreprocessConfig, plan: Plan, sidecars: Sequence[Sidecar], view: RunView) -> int:
    """Quarantine list, report.json, table on the screen; the exit status."""
    duplicates = duplicate_entries(sidecars)
    quarantine = [entry for sidecar in sidecars for entry in sidecar.quarantine] + duplicates
    _write_quarantine(config.out / QUARANTINE_FILE, quarantine)
    summary = summarise(sidecars, quarantine)
    summary["this_run"] = {
        "shards": len(plan.tasks),
        "shards_done_before": len(plan.tasks) - len(plan.todo),
        "notes": list(plan.notes),
        **view.summary(),
    }
    write_report(config.out, verb="preprocess", inputs=[config.input], config=config, seed=config.seed, results=summary)
    print_summary(summary, config.out)
    if config.executor == "ray" and view.peak_memory_bytes > config.memory_gib * 2**30:
        print(
            f"a worker took {view.peak_memory_bytes / 2**30:.1f} GiB, more than the {config.memory_gib:g} GiB set aside "
            "for it; raise --memory-gib so that no machine runs out"
        )
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


def wait_until_seen(out: Path, results: Sequence[ShardResult], limit_s: float = SEEN_LIMIT_S) -> None:
    """Return when the sidecars of these shards are listed here: a network file system may show an old list for a while.

    Raises:
        OSError: one is not there after `limit_s` seconds.
    """
    end = time.monotonic() + limit_s
    while True:
        listed = {path.name for path in sidecar_folder(out).glob("*.json")}
        unseen = [item for item in results if sidecar_path(out, item.task.split, item.task.index).name not in listed]
        if not unseen:
            return
        if time.monotonic() > end:
            where = sidecar_path(out, unseen[0].task.split, unseen[0].task.index)
            raise OSError(
                f"{where}: made on {unseen[0].node}, but not to be seen here after {limit_s:g} s; do all machines share {out}?"
            )
        time.sleep(1.0)


@contextmanager
def told_of_full_disk(out: Path) -> Iterator[None]:
    """Say what to do where a small file beside the shards finds no room either."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise OSError(
            error.errno, f"{error.strerror}; make room on the disk of {out} and run the same command again", error.filename
        ) from error


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
