"""Pruning criteria: every drop score of `sparse_core`, all else equal, at four densities; and how alike their choices are.

After Nowak et al. 2023 ("Fantastic weights and how to find them: where to prune in dynamic sparse training"). Runs of one seed
share the split, the order of the images and the initial weights; sparse runs of one density begin with the same links.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

import sparse_core
from sparse_core import masks, schedules, scores
from sparse_core.family import mlp
from sparse_core.family.command import finish, options
from sparse_core.family.data import Digits, Split, load
from sparse_core.family.intervals import Mean, mean_of
from sparse_core.family.study import Result, Run, Settings, StudyError, complete, write_json, write_text
from sparse_core.family.tables import NOTE, percent, table

CRITERIA: dict[str, scores.Score] = {
    "magnitude": scores.magnitude,
    "signed": scores.signed,
    "signed_count": scores.signed_count,
    "mest": scores.mest(1.0),
    "snip": scores.snip,
    "taylor": scores.taylor,
    "sensitivity": scores.sensitivity,
    "reciprocal_sensitivity": scores.reciprocal_sensitivity,
    "random": scores.random,
}
DENSITIES = (0.2, 0.1, 0.05, 0.02)
SIZES = (784, 300, 100, 10)
RATE = 0.5
PROPOSED_RATE = 0.5  # of the dry runs whose choices are compared, at any step
MOMENTS = ("first update", "middle update")


def method_of(settings: Settings) -> sparse_core.Method | None:
    """The method of a run; None: dense."""
    density, every = settings["density"], settings["every"]
    if settings["criterion"] == "dense":
        return None
    if settings["criterion"] == "static":
        return sparse_core.Static(density)
    return sparse_core.Method(
        density=density,
        layout=sparse_core.layout.erk(),
        drop=CRITERIA[settings["criterion"]],
        grow=scores.random,
        rate=schedules.Cosine(settings["rate"], stop=0.005),
        every=every,
        # After every period but the last: in the first step of the next one, before that step moves a weight.
        offset=every + 1,
        end=settings["steps"] - every + 1,
    )


def train(settings: Settings, digits: Digits, advance: Callable[[int], None]) -> Result:
    """One run."""
    seed = settings["seed"]
    split = digits.split(settings["train_images"], seed)
    model = mlp.perceptron(settings["sizes"], seed)
    optimizer = mlp.sgd(model, settings)
    method = method_of(settings)
    engine = None if method is None else sparse_core.sparsify(model, optimizer, method, seed=seed)
    overlaps: dict[str, list[list[float]]] = {}

    def compare(step: int) -> None:
        if engine is not None and step in settings["compare_at"]:
            overlaps[MOMENTS[settings["compare_at"].index(step)]] = choices_alike(engine)

    if engine is not None:
        mlp.scale_up(engine, model)
    curve = mlp.train(
        model, optimizer, split, settings["steps"], settings["batch"], settings["evaluations"], seed, advance, compare
    )
    result: Result = {"curve": asdict(curve), "accuracy": curve.accuracy[-1]}
    if engine is None:
        result["links"] = sum(parameter.numel() for parameter in model.parameters() if parameter.dim() == 2)
        return result
    report = engine.report()
    result |= {"links": report.links, "explored": report.exploration}
    result["links_at_dark_pixels"] = share_at_dark_pixels(engine.masks["0.weight"], split)
    return result | ({"overlap": overlaps} if overlaps else {})


def choices_alike(engine: sparse_core.SparseEngine) -> list[list[float]]:
    """Jaccard similarity of the links that each two criteria would drop now, in the order of `CRITERIA`."""
    dropped = [engine.propose(replace(engine.method, drop=score, rate=PROPOSED_RATE)).dropped for score in CRITERIA.values()]
    return [[masks.jaccard(one, other).total for other in dropped] for one in dropped]


def share_at_dark_pixels(mask: torch.Tensor, split: Split) -> float:
    """The share of the first layer's links that begin at pixels which are 0 in every training image: links without a use.

    Args:
        mask: bool, (outputs, 784).
    """
    dark = split.train_images.amax(dim=0) == 0
    return float(mask[:, dark].sum() / mask.sum())


def runs_of(seeds: int, steps: int, every: int, densities: Sequence[float], train_images: int, digest: str) -> list[Run]:
    """The dense network, the static ones and every criterion, at every density with every seed, seed by seed.

    Raises:
        StudyError: too few steps for an update.
    """
    if steps < 2 * every:
        raise StudyError(f"--steps {steps} with --every {every}: expected at least two periods, else nothing is ever exchanged")
    moments = [every + 1, steps // 2 // every * every + 1]
    runs = []
    for seed in range(seeds):
        for criterion, density in [
            ("dense", 1.0),
            *((name, density) for density in densities for name in ("static", *CRITERIA)),
        ]:
            settings: dict[str, Any] = {
                "study": "pruning_criteria",
                "criterion": criterion,
                "density": density,
                "seed": seed,
                "steps": steps,
                "sizes": list(SIZES),
                "batch": 50,
                "lr": 0.05,
                "momentum": 0.9,
                "weight_decay": 5e-4,
                "rate": RATE,
                "every": every,
                "compare_at": moments if criterion == "magnitude" else [],
                "compare_rate": PROPOSED_RATE,
                "evaluations": 10,
                "train_images": train_images,
                "data": digest,
            }
            sparse = method_of(settings)
            words = None if sparse is None else sparse.describe()
            runs.append(Run(name_of(criterion, density, seed), settings | {"sparse": words}))
    return runs


def name_of(criterion: str, density: float, seed: int) -> str:
    """The name of a run."""
    return f"{criterion}_density{density:g}_seed{seed}"


def summary(results: Mapping[str, Result], seeds: int, densities: Sequence[float]) -> dict[str, Any]:
    """Means with intervals, by density and criterion; differences to magnitude and to static are of the same seed."""

    def of(criterion: str, density: float, key: str = "accuracy") -> list[float]:
        return [results[name_of(criterion, density, seed)][key] for seed in range(seeds)]

    def minus(one: list[float], other: list[float]) -> dict[str, Any]:
        return asdict(mean_of([a - b for a, b in zip(one, other, strict=True)]))

    cells: dict[str, Any] = {}
    for density in densities:
        cells[f"{density:g}"] = {
            name: {
                "links": results[name_of(name, density, 0)]["links"],
                "accuracy": asdict(mean_of(of(name, density))),
                "accuracy_of_seeds": of(name, density),
                "against_magnitude": minus(of(name, density), of("magnitude", density)),
                "against_static": minus(of(name, density), of("static", density)),
                "explored": asdict(mean_of(of(name, density, "explored"))),
                "links_at_dark_pixels": asdict(mean_of(of(name, density, "links_at_dark_pixels"))),
            }
            for name in ("static", *CRITERIA)
        }
    overlap = {
        f"{density:g}": {
            moment: torch.tensor(
                [results[name_of("magnitude", density, seed)]["overlap"][moment] for seed in range(seeds)], dtype=torch.float64
            )
            .mean(dim=0)
            .tolist()
            for moment in MOMENTS
        }
        for density in densities
    }
    dense = {"accuracy": asdict(mean_of(of("dense", 1.0))), "accuracy_of_seeds": of("dense", 1.0)}
    return {"seeds": seeds, "criteria": list(CRITERIA), "dense": dense, "densities": cells, "overlap": overlap}


def results_table(found: Mapping[str, Any], key: str, signed: bool = False) -> str:
    """One quantity of the summary, in percent: a row per criterion, a column per density."""
    by_density = found["densities"]
    rows = [["criterion", *(f"density {density}" for density in by_density)]]
    for name in ("static", *found["criteria"]):
        rows.append([name, *(percent(Mean(**cells[name][key]), signed) for cells in by_density.values())])
    if key == "accuracy":
        rows.append(["dense", percent(Mean(**found["dense"]["accuracy"])), *("" for _ in list(by_density)[1:])])
    return table(rows)


def overlap_table(found: Mapping[str, Any], density: str, moment: str) -> str:
    """Jaccard similarities of the choices, at one density and moment."""
    names = found["criteria"]
    matrix = found["overlap"][density][moment]
    rows = [["", *names], *([name, *(f"{value:.2f}" for value in row)] for name, row in zip(names, matrix, strict=True))]
    return table(rows)


def study(given: argparse.Namespace) -> None:
    """Do what is missing, then tables, summary and pictures."""
    densities = list(dict.fromkeys(given.densities))
    digits = load(given.data)
    runs = runs_of(given.seeds, given.steps, given.every, densities, given.train_images, digits.digest)
    results = complete("pruning_criteria", runs, train, digits, given.out, given.workers)
    made = {"steps": given.steps, "every": given.every, "train_images": given.train_images}
    found = made | summary(results, given.seeds, densities)
    text = "\n\n".join(
        [
            f"Test accuracy, %\n\n{results_table(found, 'accuracy')}",
            f"Against magnitude, percentage points, seed by seed\n\n{results_table(found, 'against_magnitude', signed=True)}",
            f"Against static, percentage points, seed by seed\n\n{results_table(found, 'against_static', signed=True)}",
            f"First-layer links at pixels that are always dark, %\n\n{results_table(found, 'links_at_dark_pixels')}",
        ]
    )
    write_json(given.out / "summary.json", found)
    write_text(given.out / "table.md", f"{text}\n")
    pictures = draw(found, given.out)
    print(f"{text}\n\n{given.seeds} seeds, {given.steps} steps. {NOTE}", *pictures, sep="\n")


def draw(found: Mapping[str, Any], out: Path) -> list[Path]:
    """Accuracy by criterion and density, and the similarity of the choices."""
    from sparse_core.family import plotting

    return [
        plotting.draw_accuracies(found, out / "pruning_criteria.png"),
        plotting.draw_overlaps(found, out / "pruning_criteria_overlap.png"),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = options(
        "pruning_criteria", "Which links should a sparse training drop? Every criterion, all else equal.", steps=4000
    )
    parser.add_argument("--every", type=int, default=100, metavar="N", help="steps between updates (default: 100)")
    parser.add_argument(
        "--densities", type=_density, nargs="+", default=list(DENSITIES), metavar="D", help="default: 0.2 0.1 0.05 0.02"
    )
    return finish(study, parser, arguments)


def _density(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected 0 < density < 1")
    return value


if __name__ == "__main__":
    raise SystemExit(main())
