"""What the studies measure besides accuracy, and how they set a network up."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import sparse_core
from sparse_core.family import mlp, pruning_criteria, set_mlp
from sparse_core.family.data import Split, load
from tests.sparse_core.family.digit_files import csv_gz


def test_centre_to_border_is_three_where_the_inner_pixels_have_thrice_the_links() -> None:
    image = torch.ones(28, 28)
    image[7:21, 7:21] = 3
    assert set_mlp.centre_to_border(image.flatten()) == pytest.approx(3)


def test_links_at_dark_pixels_are_those_whose_pixel_no_training_image_lights() -> None:
    images = torch.tensor([[0.0, 0.5, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    test_images = torch.ones(1, 4)  # what lights up in tests only is dark all the same
    split = Split(images, torch.zeros(2, dtype=torch.int64), test_images, torch.zeros(1, dtype=torch.int64))
    mask = torch.tensor([[True, True, False, False], [True, True, True, False]])
    assert pruning_criteria.share_at_dark_pixels(mask, split) == pytest.approx(2 / 5)


def test_scaled_up_weights_pass_on_as_much_signal_as_dense_ones() -> None:
    model = mlp.perceptron((400, 300, 10), seed=0)
    dense = model.get_parameter("0.weight").detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    engine = sparse_core.sparsify(model, optimizer, sparse_core.Static(0.1, layout=sparse_core.layout.uniform()))
    mlp.scale_up(engine, model)
    sparse, mask = model.get_parameter("0.weight").detach(), engine.masks["0.weight"]
    torch.testing.assert_close(sparse, torch.where(mask, dense * 0.1**-0.5, 0.0))
    inputs = torch.randn(500, 400, generator=torch.Generator().manual_seed(9))  # not the stream of the weights
    assert (inputs @ sparse.T).std() / (inputs @ dense.T).std() == pytest.approx(1, abs=0.05)


def test_initial_weights_depend_on_the_seed_alone() -> None:
    state = torch.get_rng_state()
    one, other = mlp.perceptron((20, 10), seed=1), mlp.perceptron((20, 10), seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one[0].weight, mlp.perceptron((20, 10), seed=1)[0].weight)
    assert not torch.equal(one[0].weight, other[0].weight)


def test_comparing_the_criteria_leaves_the_training_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning_criteria, "SIZES", (784, 20, 10))
    digits = load(csv_gz(tmp_path / "digits.csv.gz"))
    runs = pruning_criteria.runs_of(1, 20, 5, [0.1], 20, digits.digest)
    settings = next(run.settings for run in runs if run.settings["criterion"] == "magnitude")
    watched = pruning_criteria.train(settings, digits, lambda steps: None)
    alone = pruning_criteria.train({**settings, "compare_at": []}, digits, lambda steps: None)
    assert set(watched["overlap"]) == set(pruning_criteria.MOMENTS)
    assert {key: value for key, value in watched.items() if key != "overlap"} == alone
