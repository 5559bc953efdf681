"""SET-MLP: a dense perceptron, a static sparse one and one that SET rewires, trained alike on few digits.

After Mocanu et al. 2018 ("Scalable training of artificial neural networks with adaptive sparse connectivity inspired by
network science"). All three have the same layers, split, order of the images and number of steps; static and SET begin with
the same links and the same weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import sparse_core
from sparse_core.family import mlp
from sparse_core.family.command import finish, options
from sparse_core.family.data import Digits, load
from sparse_core.family.intervals import Mean, mean_of
from sparse_core.family.study import Result, Run, Settings, StudyError, complete, write_json, write_text
from sparse_core.family.tables import NOTE, number, percent, table

METHODS = ("dense", "static", "SET")
SIZES = (784, 500, 500, 500, 10)
EPSILON = 5  # 18,970 links of 897,000
BATCH = 50
LEARNING_RATE = 0.05
MOMENTUM = 0.9
WEIGHT_DECAY = 4e-4  # with this momentum and learning rate 2e-4 of a weight per step: SET's own decay
RATE = 0.3
STD = {"dense": None, "static": 0.1, "SET": 0.1}  # of the initial weights; None: sqrt(2 / inputs)
SIDE = 28


def method_of(settings: Settings) -> sparse_core.Method | None:
    """The method of a run; None: dense."""
    layout = sparse_core.layout.epsilon(settings["epsilon"])
    if settings["method"] == "static":
        return sparse_core.Static(None, layout=layout)
    if settings["method"] == "SET":
        # After every epoch but the last: in the first step of the next one, before that step moves a weight.
        epoch, last = settings["every"], settings["steps"] - settings["every"] + 1
        return sparse_core.SET(None, last, epoch, settings["rate"], layout=layout, offset=epoch + 1)
    return None


def train(settings: Settings, digits: Digits, advance: Callable[[int], None]) -> Result:
    """One run."""
    seed = settings["seed"]
    split = digits.split(settings["train_images"], seed)
    model = mlp.perceptron(settings["sizes"], seed, settings["std"])
    optimizer = mlp.sgd(model, settings)
    method = method_of(settings)
    engine = None if method is None else sparse_core.sparsify(model, optimizer, method, seed=seed)
    curve = mlp.train(model, optimizer, split, settings["steps"], settings["batch"], settings["evaluations"], seed, advance)
    result: Result = {"curve": asdict(curve), "accuracy": curve.accuracy[-1]}
    if engine is None:
        result["links"] = sum(parameter.numel() for parameter in model.parameters() if parameter.dim() == 2)
        return result
    report = engine.report()
    per_pixel = engine.masks["0.weight"].sum(dim=0)
    result |= {"links": report.links, "explored": report.exploration, "links_per_pixel": per_pixel.tolist()}
    result["centre_to_border"] = centre_to_border(per_pixel)
    return result


def centre_to_border(per_pixel: torch.Tensor) -> float:
    """Mean links of the inner 14 x 14 pixels over those of the pixels around them.

    Args:
        per_pixel: (784,), the links of each input.
    """
    image = per_pixel.float().view(SIDE, SIDE)
    quarter = SIDE // 4
    centre = image[quarter:-quarter, quarter:-quarter]
    around = (image.sum() - centre.sum()) / (image.numel() - centre.numel())
    return float(centre.mean() / around)


def runs_of(seeds: int, steps: int, train_images: int, digest: str) -> list[Run]:
    """Every method with every seed, seed by seed.

    Raises:
        StudyError: too few steps for an exchange.
    """
    epoch = max(1, train_images // BATCH)
    if steps < 2 * epoch:
        raise StudyError(f"--steps {steps}: expected at least two epochs of {epoch} steps, else SET never exchanges a link")
    runs = []
    for seed in range(seeds):
        for method in METHODS:
            settings: dict[str, Any] = {
                "study": "set_mlp",
                "method": method,
                "seed": seed,
                "steps": steps,
                "sizes": list(SIZES),
                "epsilon": EPSILON,
                "batch": BATCH,
                "lr": LEARNING_RATE,
                "momentum": MOMENTUM,
                "weight_decay": WEIGHT_DECAY,
                "std": STD[method],
                "rate": RATE,
                "every": epoch,
                "evaluations": 20,
                "train_images": train_images,
                "data": digest,
            }
            sparse = method_of(settings)
            runs.append(Run(f"{method}_seed{seed}", settings | {"sparse": None if sparse is None else sparse.describe()}))
    return runs


def summary(results: Mapping[str, Result], seeds: int) -> dict[str, Any]:
    """Means with intervals, by method; differences to the static network are of the same seed."""
    by_method = {method: [results[f"{method}_seed{seed}"] for seed in range(seeds)] for method in METHODS}
    static = [one["accuracy"] for one in by_method["static"]]
    rows = {}
    for method, found in by_method.items():
        accuracy = [one["accuracy"] for one in found]
        row: dict[str, Any] = {
            "links": found[0]["links"],
            "accuracy": asdict(mean_of(accuracy)),
            "accuracy_of_seeds": accuracy,
            "against_static": asdict(mean_of([a - b for a, b in zip(accuracy, static, strict=True)])),
        }
        for key in ("explored", "centre_to_border"):
            if key in found[0]:
                row[key] = asdict(mean_of([one[key] for one in found]))
        rows[method] = row
    return {"seeds": seeds, "methods": rows}


def results_table(found: Mapping[str, Any]) -> str:
    """The summary as a table."""
    rows = [["method", "links", "test accuracy %", "against static, points", "explored %", "links centre / border"]]
    for method, row in found["methods"].items():
        explored = percent(Mean(**row["explored"])) if "explored" in row else ""
        ratio = number(Mean(**row["centre_to_border"])) if "centre_to_border" in row else ""
        against = "" if method == "static" else percent(Mean(**row["against_static"]), signed=True)
        rows.append([method, f"{row['links']:,}", percent(Mean(**row["accuracy"])), against, explored, ratio])
    return table(rows)


def study(given: argparse.Namespace) -> None:
    """Do what is missing, then table, summary and picture."""
    digits = load(given.data)
    runs = runs_of(given.seeds, given.steps, given.train_images, digits.digest)
    results = complete("set_mlp", runs, train, digits, given.out, given.workers)
    found = {"steps": given.steps, "train_images": given.train_images, **summary(results, given.seeds)}
    text = results_table(found)
    write_json(given.out / "summary.json", found)
    write_text(given.out / "table.md", f"{text}\n")
    picture = draw(results, given.seeds, given.out / "set_mlp.png")
    print(f"{text}\n\n{given.seeds} seeds, {given.steps} steps. {NOTE}\n{picture}")


def draw(results: Mapping[str, Result], seeds: int, path: Path) -> Path:
    """Learning curves, and where the inputs' links are."""
    from sparse_core.family import plotting

    curves = {method: [results[f"{method}_seed{seed}"]["curve"] for seed in range(seeds)] for method in METHODS}
    maps = {
        method: torch.tensor([results[f"{method}_seed{seed}"]["links_per_pixel"] for seed in range(seeds)]).float().mean(dim=0)
        for method in METHODS
        if method != "dense"
    }
    return plotting.draw_set_mlp(curves, {name: image.view(SIDE, SIDE).tolist() for name, image in maps.items()}, path)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = options("set_mlp", "Dense, static and SET on 1,000 digits: does rewiring help at equal links?", steps=6000)
    return finish(study, parser, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
