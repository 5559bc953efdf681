"""`limtr compare`: variants x seeds trained and evaluated through the command line, and their differences with intervals."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from evaluation.comparison.analyse import Comparison, analyse
from evaluation.comparison.cost import Cost, RunFolders, cost_of
from evaluation.comparison.degraded import curves_table, draw_curves, read_curves
from evaluation.comparison.document import write_document
from evaluation.comparison.execute import in_turn, on_ray
from evaluation.comparison.perform import Outcome
from evaluation.comparison.plots import draw_differences, draw_pareto
from evaluation.comparison.results import Context, as_results, same_trainings, why_order_differs
from evaluation.comparison.runs import EvaluationPlan, Run, earlier_settings, plan_runs
from evaluation.comparison.tables import cost_table, print_table, quality_table
from evaluation.comparison.variants import Variant, read_variants
from evaluation.comparison.verdicts import coverage, percent, verdicts
from evaluation.corruptions.catalogue import SEVERITIES, CorruptionName
from evaluation.metric_config import Bucketing
from evaluation.robustness import check_severities
from evaluation.scene_scores import FILE as SCORES_FILE
from evaluation.scene_scores import SceneScores, read_scene_scores
from limtr.files import read_json, write_json
from limtr.progress import progress
from limtr.run_report import as_plain, write_report
from limtr.scene import ObjectType
from preprocessing.shards import SceneSource

RESULTS_FILE, DOCUMENT_FILE = "results.json", "compare.md"


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Options of `limtr compare`."""

    config: tuple[Path, ...]
    """YAML files, one per variant (`name:`, `data:`, and options of `limtr train` under `train:`); the first is the one that
    the others are compared with."""
    out: Path
    """Folder for runs/, results.json, report.json, compare.md and pictures; finished runs in it are kept."""
    data: Path | None = None
    """Dataset of shards for variants that name none."""
    seeds: int = 5
    """Seeds 0, 1, ... so many; each trains every variant with the same order of scenes."""
    split: str = "validation"
    """Split to evaluate on: train or validation."""
    classes: tuple[Literal["vehicle", "pedestrian", "cyclist"], ...] = ("vehicle", "pedestrian", "cyclist")
    """Compare what is predicted for these classes."""
    bucketing: Bucketing = "2024"
    """Rule of the trajectory buckets of mAP."""
    corrupt: tuple[CorruptionName, ...] = ()
    """Evaluate every run on degraded inputs of these kinds too (`all`: of every kind), as `limtr evaluate --corrupt` does."""
    severities: tuple[int, ...] = SEVERITIES
    """Of --corrupt: 1 (mild) to 5."""
    resamples: int = 2000
    """Bootstrap resamples of scenes and seeds."""
    level: float = 0.95
    """Share of the intervals that should hold the true difference."""
    executor: Literal["ray", "local"] = "ray"
    """Ray tasks, or one run after the other from this process; the results are the same."""
    ray_address: str | None = None
    """Address of a running Ray cluster, every machine of which sees the same folders; default: a Ray of its own."""
    workers: int | None = None
    """Runs at a time with Ray [default: the cores of this machine divided by --threads]."""
    threads: int = 1
    """Threads of each run. Their number changes the last digits, so it is part of what a finished run is known by."""

    def __post_init__(self) -> None:
        """Validate."""
        if not self.config or not self.classes:
            raise ValueError("--config must name at least one file, --classes at least one class")
        for name in ("seeds", "threads", "resamples", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name} must be at least 1, is {value}")
        if self.resamples < 100:
            raise ValueError(f"--resamples must be at least 100, is {self.resamples}: intervals would be noise")
        if not 0.5 <= self.level < 1.0:
            raise ValueError(f"--level must be at least 0.5 and below 1, is {self.level}")
        check_severities(self.severities)
        if self.executor == "local":
            if (self.workers or 1) > 1:
                raise ValueError(f"--workers {self.workers} needs --executor ray: the local one does one run after the other")
            if self.ray_address is not None:
                raise ValueError("--ray-address needs --executor ray")

    @property
    def plan(self) -> EvaluationPlan:
        """How every run is evaluated."""
        words = ("--corrupt", *self.corrupt, "--severities", *map(str, self.severities)) if self.corrupt else ()
        return EvaluationPlan(split=self.split, bucketing=self.bucketing, words=words)


def run(config: CompareConfig) -> int:
    """Do what is missing, then compare; 0 only if every run is whole."""
    _require_own_folder(config.out)
    variants = read_variants(config.config, config.data)
    for data in dict.fromkeys(variant.data for variant in variants):
        for split in ("train", config.split):
            SceneSource(data, split)
    runs = plan_runs(variants, range(config.seeds), config.plan, config.out, threads=config.threads)
    finished = {item.folder: item.finished() for item in runs}
    missing = [item for item in runs if finished[item.folder] is None]
    _tell_plan(config, variants, runs, missing)
    failed = _do(config, missing)
    finished |= {item.folder: item.finished() for item in missing}
    whole = [item for item in runs if finished[item.folder] is not None]
    if not any(item.variant == variants[0].name for item in whole):
        _tell_failures(failed)
        raise ValueError(f"no run of {variants[0].name!r}, the first variant, is finished: nothing to compare with")
    _report(config, variants, whole, {item.folder: finished[item.folder] or {} for item in whole}, failed)
    _tell_failures(failed)
    return 1 if failed else 0


def _require_own_folder(out: Path) -> None:
    """Results would be written over the report of a training, an evaluation or a dataset."""
    path = out / "report.json"
    verb = read_json(path).get("verb") if path.exists() else "compare"
    if verb != "compare":
        raise ValueError(f"--out: {out} holds what `limtr {verb}` wrote ({path}); choose another folder")


def _tell_plan(config: CompareConfig, variants: Sequence[Variant], runs: Sequence[Run], missing: Sequence[Run]) -> None:
    at_once = f"{_workers(config)} at a time as Ray tasks" if config.executor == "ray" else "one after the other"
    print(
        f"{len(runs)} runs ({len(config.config)} variants x {config.seeds} seeds): {len(runs) - len(missing)} finished in "
        f"{config.out / 'runs'}, {len(missing)} to do, {at_once}, {config.threads} thread(s) each; each writes a log.txt there",
        flush=True,
    )
    for left, right in same_trainings(variants):
        print(f"limtr compare: {left} and {right} are the same training: their difference can only be zero", file=sys.stderr)
    for variant in variants:
        if variant.recipe(seed=0)["minutes"] is not None:
            print(
                f"limtr compare: {variant.name} is limited in minutes: its result depends on the load of the machine; set "
                "steps or epochs alone", file=sys.stderr,
            )  # fmt: skip
    for item in missing:
        for told in earlier_settings(item):
            print(f"{item.name} changed and is trained anew: {told}", flush=True)


def _workers(config: CompareConfig) -> int:
    return config.workers or max(1, len(os.sched_getaffinity(0)) // config.threads)


def _do(config: CompareConfig, missing: Sequence[Run]) -> list[Outcome]:
    """Do the runs; the failed ones come back."""
    if not missing:
        return []
    outcomes: Iterable[Outcome] = (
        in_turn(missing)
        if config.executor == "local"
        else on_ray(missing, address=config.ray_address, workers=_workers(config))
    )
    failed = []
    with progress("comparing", len(missing), "runs") as advance:
        for outcome in outcomes:
            if outcome.error is not None:
                failed.append(outcome)
                print(f"limtr compare: {outcome.run.name} failed; the others go on", file=sys.stderr, flush=True)
            advance(1, outcome.run.name)
    return failed


def _tell_failures(failed: Sequence[Outcome]) -> None:
    for item in failed:
        print(f"limtr compare: {item.run.name} failed: {item.error}", file=sys.stderr)
    if failed:
        print(f"limtr compare: {len(failed)} runs failed; the same command tries them again", file=sys.stderr)


def _report(
    config: CompareConfig, variants: Sequence[Variant], whole: Sequence[Run], finished: Mapping[Path, Mapping[str, Any]],
    failed: Sequence[Outcome],
) -> None:  # fmt: skip
    scores: dict[str, dict[int, SceneScores]] = {}
    costs: dict[str, Cost] = {}
    kinds = [ObjectType[name.upper()] for name in config.classes]
    for variant in variants:
        own = [item for item in whole if item.variant == variant.name]
        if not own:
            print(f"limtr compare: {variant.name} has no finished run and is left out", file=sys.stderr)
            continue
        scores[variant.name] = {item.seed: read_scene_scores(item.evaluation / SCORES_FILE).of_types(kinds) for item in own}
        folders = [
            RunFolders(training=item.training, evaluation=item.evaluation, finished=finished[item.folder]) for item in own
        ]
        costs[variant.name] = cost_of(folders, variant.data, config.split)
    comparison = analyse(scores, num_resamples=config.resamples, level=config.level, seed=0)
    context = Context(variants=variants, costs=costs, failed=failed, same_order=why_order_differs(variants))
    _print(config, comparison, context)
    evaluations = {name: [item.evaluation for item in whole if item.variant == name] for name in comparison.variants}
    curves = read_curves(evaluations, [kind.name for kind in kinds])
    results = as_results(comparison, context) | ({"robustness": curves} if curves else {})
    write_json(config.out / RESULTS_FILE, as_plain(results))
    pictures = [draw_pareto(comparison, costs, config.out / "pareto.png")]
    differences = draw_differences(comparison, config.out / "differences.png")
    pictures = [differences, *pictures] if differences else pictures
    for stale, made in (("differences.png", differences), ("robustness.png", curves)):
        if not made:  # of an earlier call
            (config.out / stale).unlink(missing_ok=True)
    if curves:
        print_table(curves_table(curves), "degraded inputs, mean over horizons, classes and seeds")
        pictures.append(draw_curves(comparison, curves, config.out / "robustness.png"))
    command = shlex.join(["limtr", "compare", *_words(config)])
    write_document(config.out / DOCUMENT_FILE, comparison, context, curves, pictures=pictures, command=command)
    inputs = [*config.config, *dict.fromkeys(variant.data for variant in variants)]
    told = {key: value for key, value in results.items() if key not in ("variants", "robustness")}
    told["verdicts"] = {name: item.get("verdicts", []) for name, item in results["variants"].items()}
    told["runs"] = {item.name: item.folder for item in whole}
    write_report(config.out, verb="compare", inputs=inputs, config=config, seed=None, results=told)
    print(f"all values in {config.out / RESULTS_FILE}, to read: {config.out / DOCUMENT_FILE}, pictures beside it")


def _print(config: CompareConfig, comparison: Comparison, context: Context) -> None:
    title = (
        f"{len(comparison.scenes.scenario_ids)} scenes, mean over horizons; differences to {comparison.baseline} with "
        f"{percent(config.level)} intervals over {coverage(comparison)}"
    )
    print_table(quality_table(comparison), title)
    print_table(cost_table(comparison, context.costs), "cost")
    for name in comparison.variants:
        for sentence in verdicts(comparison, name):
            print(sentence)
    if context.same_order:
        print(f"the variants differ in {context.same_order}, so they do not see the scenes in one order")


def _words(config: CompareConfig) -> list[str]:
    """The options that shape the results, as one would type them."""
    words = ["--config", *map(str, config.config), "--seeds", str(config.seeds)]
    words += ["--data", str(config.data)] if config.data else []
    defaults = CompareConfig(config=config.config, out=config.out)
    words += list(config.plan.words)
    words += ["--classes", *config.classes] if config.classes != defaults.classes else []
    for name in ("split", "bucketing", "resamples", "level", "threads"):
        if getattr(config, name) != getattr(defaults, name):
            words += [f"--{name}", str(getattr(config, name))]
    return [*words, "--out", str(config.out)]
