"""`limtr demo`: the whole road in one command, made of the verbs that a person would type one by one."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from limtr.cli import main


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Options of `limtr demo`."""

    out: Path = Path(".demo")
    """Folder for records, shards, the trained model and the evaluation."""
    quick: bool = False
    """Fewer scenes and a shorter training: shows that everything runs, not how well."""
    seed: int = 0
    """Seed of the scenes, the intention points and the training."""


def steps(config: DemoConfig) -> list[list[str]]:
    """The commands, in order; each is `limtr` and these words."""
    home = config.out / ("quick" if config.quick else "full")
    raw, shards, run = str(home / "raw"), str(home / "shards"), str(home / "run")
    seed = ["--seed", str(config.seed)]
    scenes = "20" if config.quick else "160"
    licence = ["--licence", "none: simulated scenes"]
    length = ["--epochs", "12", "--minutes", "0.5"] if config.quick else ["--epochs", "24", "--minutes", "4"]
    return [
        ["synthesize", "--scenes", scenes, *seed, "--out", raw],
        ["preprocess", "--input", raw, "--out", shards, "--points", "512"],
        ["intentions", "--data", shards, *seed],
        ["train", "--preset", "tiny", "--data", shards, "--out", run, *length, *seed, *licence, *_resume(Path(run))],
        ["evaluate", "--checkpoint", run, "--data", shards, "--out", str(home / "evaluation"), "--pictures", "6"],
    ]


def _resume(run: Path) -> Sequence[str]:
    return ["--resume"] if (run / "checkpoints" / "latest.txt").exists() else []


def run(config: DemoConfig) -> int:
    """Run every step; stop at the first that fails and return its exit status."""
    start = time.monotonic()
    spent: list[tuple[str, float]] = []
    for words in steps(config):
        print(f"\n$ limtr {shlex.join(words)}", flush=True)
        step_start = time.monotonic()
        status = main(words)
        spent.append((words[0], time.monotonic() - step_start))
        if status != 0:
            print(f"demo: `limtr {words[0]}` ended with status {status}")
            return status
    print_summary(config, spent, time.monotonic() - start)
    return 0


def print_summary(config: DemoConfig, spent: Sequence[tuple[str, float]], total_s: float) -> None:
    """Where everything is, how long it took, and what to type next."""
    home = config.out / ("quick" if config.quick else "full")
    times = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in spent)
    print(f"""
The whole road took {total_s:.0f} s: {times}.
  records   {home / "raw"}  (WOMD's formats: motion and LiDAR)
  shards    {home / "shards"}  (a TFDS dataset)
  model     {home / "run"}
  metrics   {home / "evaluation" / "metrics.json"}
  pictures  {home / "evaluation" / "pictures"}""")
    command = Path(sys.argv[0])
    limtr = str(command) if command.name == "limtr" else "limtr"
    data, model = f"--data {home / 'shards'}", f"--checkpoint {home / 'run'}"
    hints = [
        ("what LiDAR brings", f"{limtr} train --preset tiny {data} --out {home / 'run-without-lidar'} --no-lidar"),
        ("mAP with the buckets before 2024", f"{limtr} evaluate {model} {data} --bucketing 2021"),
        ("the best NMS distance of each class", f"{limtr} tune-nms {model} {data}"),
        ("the licensed dataset", f"{limtr} preprocess --input WOMD --out SHARDS"),
    ]
    if config.quick:
        hints.insert(0, ("more scenes and a longer training", "make demo"))
    print("\nNext:")
    for what, words in hints:
        print(f"  {words}    # {what}")
