"""Run: one variant with one seed, in a folder that carries a hash of everything that its result depends on."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.comparison.variants import Variant
from evaluation.scene_scores import FILE as SCORES_FILE
from limtr.files import read_json
from limtr.intentions import INTENTIONS_FILE
from limtr.model_files import WEIGHTS_FILE, find_model_folder
from preprocessing.shards import data_fingerprint

FINISHED_FILE = "finished.json"
SETTINGS_FILE = "settings.json"
LOG_FILE = "log.txt"
HARMLESS_OPTIONS = ("workers", "cache_gib", "licence", "checkpoint_every_s", "rank_timeout_s", "max_failures", "init_from")
"""Options that no result depends on; of `init_from` the content counts, not the path."""
LATER_OPTIONS: Mapping[str, Mapping[str, Any]] = {"sparsity": {"start": "random"}}
"""Options of parts of a recipe that came after runs were finished without them, with the value that those runs had: not part of
a key while they have it, so that these runs are still known."""
FORMAT = 1
"""Part of every key: raise it when finished runs of an older kind must not be taken over."""


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """How every run is evaluated: the same for all variants.

    Attributes:
        split: of the run's data.
        bucketing: rule of the trajectory buckets.
        words: further options of `limtr evaluate`, as words.
    """

    split: str
    bucketing: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is done in one folder; plain enough to be sent to another process."""

    variant: str
    seed: int
    folder: Path
    settings: Mapping[str, Any]
    """Everything that decides on the trained model, as JSON can hold it."""
    evaluation_settings: Mapping[str, Any]
    """How it is evaluated: another way needs no other training."""
    train_words: tuple[str, ...]
    evaluate_words: tuple[str, ...]
    threads: int

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.variant}, seed {self.seed}"

    @property
    def training(self) -> Path:
        """The run folder of `limtr train`."""
        return self.folder / "training"

    @property
    def evaluation(self) -> Path:
        """The folder of `limtr evaluate`, which carries a hash of how it is evaluated."""
        return self.folder / f"evaluation-{_key(self.evaluation_settings)}"

    @property
    def log(self) -> Path:
        """What both commands printed."""
        return self.folder / LOG_FILE

    def finished(self) -> dict[str, Any] | None:
        """What `finished.json` tells if the run is whole, else None.

        Raises:
            ValueError: the file is damaged, or of other settings than the folder's name says.
        """
        path = self.evaluation / FINISHED_FILE
        if not path.exists() or not (self.evaluation / SCORES_FILE).exists():
            return None
        content: dict[str, Any] = read_json(path)
        if content.get("settings") != self.settings or content.get("evaluation") != self.evaluation_settings:
            raise ValueError(f"{path} holds the result of other settings; remove {self.folder}")
        return content


def plan_runs(variants: Sequence[Variant], seeds: Sequence[int], plan: EvaluationPlan, out: Path, *, threads: int) -> list[Run]:
    """All runs: for each seed every variant, so that an unfinished comparison already has whole pairs.

    Raises:
        FileNotFoundError: a variant's data has no shards or no intention points.
    """
    prints = {variant.data: _fingerprint(variant.data) for variant in variants}
    return [
        _run(variant, seed, plan, out, data=prints[variant.data], threads=threads) for seed in seeds for variant in variants
    ]


def _run(variant: Variant, seed: int, plan: EvaluationPlan, out: Path, *, data: str, threads: int) -> Run:
    recipe = variant.recipe(seed)
    settings = {
        "format": FORMAT,
        "variant": variant.name,
        "seed": seed,
        "recipe": without_later_options(recipe),
        "options": {name: value for name, value in variant.options.items() if name not in {*recipe, *HARMLESS_OPTIONS}},
        "start": _start_fingerprint(variant.options.get("init_from")),
        "data": data,
        "threads": threads,
    }
    settings = json.loads(json.dumps(settings))
    folder = out / "runs" / f"{slug(variant.name)}-seed{seed}-{_key(settings)}"
    return Run(
        variant=variant.name,
        seed=seed,
        folder=folder,
        settings=settings,
        evaluation_settings={"split": plan.split, "bucketing": plan.bucketing, "words": list(plan.words)},
        train_words=("--data", str(variant.data), *variant.words(), "--seed", str(seed), "--keep", "1"),
        evaluate_words=("--data", str(variant.data), "--split", plan.split, "--bucketing", plan.bucketing, *plan.words),
        threads=threads,
    )


def without_later_options(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe as it was before `LATER_OPTIONS`, where they have the values of then."""
    plain = dict(recipe)
    for part, later in LATER_OPTIONS.items():
        if isinstance(plain.get(part), Mapping):
            plain[part] = {name: value for name, value in plain[part].items() if name not in later or value != later[name]}
    return plain


def _key(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10]


def slug(name: str) -> str:
    """A variant's name as part of a file name."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower() or "variant"


def earlier_settings(run: Run) -> list[str]:
    """How this run's settings differ from those of each other folder of the same variant and seed."""
    told = []
    for path in sorted(run.folder.parent.glob(f"{slug(run.variant)}-seed{run.seed}-*/{SETTINGS_FILE}")):
        if path.parent == run.folder:
            continue
        before = read_json(path)
        if before.get("variant") == run.variant:
            told.append(f"{'; '.join(differences(before, run.settings)) or 'other settings'} (kept in {path.parent})")
    return told


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What changed between two settings, such as `recipe.steps: 400 before, 500 now`."""
    told: list[str] = []
    for name in sorted({*before, *now}):
        left, right = before.get(name), now.get(name)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            told += differences(left, right, f"{prefix}{name}.")
        elif left != right:
            told.append(f"{prefix}{name}: {left} before, {right} now")
    return told


def _fingerprint(data: Path) -> str:
    points = data / INTENTIONS_FILE
    if not points.exists():
        raise FileNotFoundError(f"{points} is missing; make it with `limtr intentions --data {data}`")
    return f"{data_fingerprint(data)}-{hashlib.sha256(points.read_bytes()).hexdigest()[:8]}"


def _start_fingerprint(path: Any) -> str | None:
    """Of the weights that a training starts from."""
    if path is None:
        return None
    start = Path(path)
    if not start.exists():
        raise FileNotFoundError(f"init_from: {start} does not exist")
    weights = start if start.is_file() else find_model_folder(start) / WEIGHTS_FILE
    return hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
