"""A comparison without trainings: commands that write at once what `limtr train` and `limtr evaluate` would."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from evaluation.comparison import perform
from evaluation.comparison.runs import Run
from evaluation.scene_scores import FILE
from limtr.files import write_json
from limtr.intentions import save_intentions
from limtr.predictor import MotionPredictor
from tests.builders import tiny_scene
from tests.evaluation.examples import write_dataset
from tests.evaluation.made_scores import made_scores
from tests.training.small import small_config, small_intentions


class MadeCommands:
    """Stands for `evaluation.comparison.perform._limtr`.

    Attributes:
        done: what was called: verb, variant and seed.
        failing: (variant, seed) pairs whose training fails.
        gain_m: how much better each variant is.
    """

    def __init__(self, **gain_m: float) -> None:
        self.done: list[tuple[str, str, int]] = []
        self.failing: set[tuple[str, int]] = set()
        self.gain_m = gain_m
        self.num_scenes = 30

    def __call__(self, run: Run, verb: str, words: Sequence[str], lock: int) -> None:
        self.done.append((verb, run.variant, run.seed))
        run.log.write_text(f"{verb}: the words of its log\n")
        if (run.variant, run.seed) in self.failing:
            raise perform.RunFailedError(f"`limtr {verb}` ended with status 1; its log is {run.log}")
        if verb == "train":
            torch.manual_seed(0)
            model = MotionPredictor(small_config())
            if "--sparsity.method" in words:
                model.encoder.layers[0].linear1.weight.data[::2] = 0.0
            model.save(run.training)
            write_json(run.training / "report.json", {"results": {"position": {"step": 4, "elapsed_s": 2.0}}})
        else:
            scores = made_scores(self.num_scenes, model_seed=run.seed, gain_m=self.gain_m.get(run.variant, 0.0))
            scores.write(run.evaluation / FILE)
            write_json(run.evaluation / "metrics.json", made_metrics(words, run.seed))
        perform._add_cost(run, verb, {"wall_s": 2.0, "cpu_s": 1.5, "peak_rss_bytes": 2**20})

    def trained(self) -> list[tuple[str, int]]:
        """Variants and seeds that were trained since the last call."""
        found = [(variant, seed) for verb, variant, seed in self.done if verb == "train"]
        self.done = []
        return found


def made_metrics(words: Sequence[str], seed: int) -> dict[str, object]:
    """metrics.json as far as a comparison reads it: minADE grows by a metre with each severity."""
    if "--corrupt" not in words:
        return {}
    values = {
        severity: {"mean": {"minADE": 1.0 + severity + 0.1 * seed, "mAP": 0.5 - 0.1 * severity}} for severity in (0, 1, 4)
    }
    severities = {str(severity): {"PEDESTRIAN": item, "VEHICLE": item} for severity, item in values.items()}
    return {"robustness": {"lidar-fog": {"severities": severities}}}


def made_data(folder: Path) -> Path:
    """Shards with intention points."""
    write_dataset(folder, {"train": [tiny_scene(0), tiny_scene(1)], "validation": [tiny_scene(50)]})
    save_intentions(folder, small_intentions(64))
    return folder


def write_variants(folder: Path, **options: str) -> tuple[Path, ...]:
    """A YAML file per variant, by name: its `train:` options in braces."""
    files = []
    for name, text in options.items():
        path = folder / f"{name}.yaml"
        path.write_text(f"train: {text}\n")
        files.append(path)
    return tuple(files)
