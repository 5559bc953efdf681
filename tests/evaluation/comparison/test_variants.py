from pathlib import Path
from typing import Any

import pytest
import tyro

from evaluation.comparison.variants import as_words, read_variant, read_variants
from training.config import TrainConfig


def write(folder: Path, text: str, name: str = "a.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_file_names_a_variant_its_data_and_options(tmp_path: Path) -> None:
    text = "name: no points\ndata: D\ntrain:\n  preset: tiny\n  lidar: false\n  learning-rate: 1e-3\n  steps: 4\n  epochs:\n"
    variant = read_variant(write(tmp_path, text), Path("other"))
    assert (variant.name, variant.data) == ("no points", Path("D"))
    assert variant.options == {"preset": "tiny", "lidar": False, "learning_rate": 0.001, "steps": 4}
    recipe = variant.recipe(seed=3)
    assert (recipe["lidar"], recipe["steps"], recipe["epochs"], recipe["seed"]) == (False, 4, None, 3)


@pytest.mark.parametrize("method", ["rigl", "dense"])
def test_a_file_may_choose_a_method_of_sparse_training(tmp_path: Path, method: str) -> None:
    variant = read_variant(write(tmp_path, f"train: {{steps: 400, sparsity: {{method: {method}}}}}"), Path("shards"))
    recipe = variant.recipe(seed=0)
    assert recipe["sparsity"] is None if method == "dense" else recipe["sparsity"]["method"] == method


def test_a_file_without_name_or_data_takes_its_own_name_and_the_common_data(tmp_path: Path) -> None:
    variant = read_variant(write(tmp_path, "train: {steps: 2}\n", "wide.yaml"), Path("shards"))
    assert (variant.name, variant.data) == ("wide", Path("shards"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {stepz: 3}", "a.yaml: train: unknown key 'stepz'; did you mean 'steps'"),
        ("trian: {steps: 3}", "a.yaml: unknown key 'trian'; did you mean 'train'"),
        ("steps: 3", "a.yaml: unknown key 'steps'; steps is an option of `limtr train`: put it under `train:`"),
        ("train: {zzz: 3}", "unknown key 'zzz'; known are .*steps"),
        ("train: {seed: 3}", "seed is set by the comparison: --seeds"),
        ("train: {out: x}", "out is set by the comparison"),
        ("train: {steps: many}", "a.yaml: train.steps must be of type int, is 'many'"),
        ("train: {lidar: }", "train.lidar must be of type bool"),
        ("train: {schedule: cosinus}", "train.schedule must be one of .*cosine"),
        ("train: {sparsity: {method: rigel}}", "train.sparsity.method must be one of .*'rigl'.*'dense'"),
        ("train: {steps: 0}", "a.yaml: train: steps must be above 0, is 0"),
        ("train: {steps: 3, steps: 4}", "a.yaml: line 1: key 'steps' comes twice"),
        ("train: {batch-size: 3, batch_size: 4}", "given twice"),
        ("train: 5", "`train` must hold options"),
        ("- 1", "must hold the keys name, data, train"),
        ("a: [", "not a YAML file"),
        ("name: 5", "name must be a text, is 5"),
        ("data: 5", "data must be a folder, is 5"),
    ],
)
def test_what_a_file_may_not_say_is_told_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_variant(write(tmp_path, text), Path("shards"))


def test_a_variant_needs_data(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no `data:` there and no --data"):
        read_variant(write(tmp_path, "train: {steps: 2}"), None)


def test_two_variants_may_not_share_a_name(tmp_path: Path) -> None:
    files = [write(tmp_path, "name: a\ntrain: {steps: 2}", name) for name in ("x.yaml", "y.yaml")]
    with pytest.raises(ValueError, match="two variants are called 'a'"):
        read_variants(files, Path("shards"))


@pytest.mark.parametrize(
    "options",
    [
        {"preset": "mtr", "steps": 5, "learning_rate": 3e-5, "lidar": False, "traffic_signals": True},
        {"classes": ["vehicle", "cyclist"], "class_weights": [1.0, 2.0, 0.5], "init_from": "somewhere else"},
    ],
    ids=["plain values", "lists and paths"],
)
def test_options_as_words_are_read_back_by_the_command_line(options: dict[str, Any]) -> None:
    config = tyro.cli(TrainConfig, args=["--data", "d", "--out", "o", *as_words(options)])
    found = {name: getattr(config, name) for name in options}
    wanted = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    wanted |= {"init_from": Path(options["init_from"])} if "init_from" in options else {}
    assert found == wanted


def test_options_of_parts_are_words_with_dots() -> None:
    assert as_words({"part": {"rate": 0.5, "on_top": False, "up": True}}) == [
        "--part.rate",
        "0.5",
        "--part.no-on-top",
        "--part.up",
    ]
