"""From dense weights to sparse ones and back: which links are kept, and that zeros learn again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import sparse_core
from limtr import cli
from limtr.predictor import MotionPredictor
from sparse_core import Structure
from tests.training.small import recipe, session, small_config, small_dataset, small_model
from training import train
from training.checkpoint import CheckpointStore
from training.sparsify import SparseTraining
from training.sparsity import MethodName, SparsityOptions


def sparse_training(tmp_path: Path, method: MethodName = "rigl", **given: Any) -> SparseTraining:
    options = SparsityOptions(method=method, every=3, density=0.3, **given)
    found = session(tmp_path, recipe(steps=12, sparsity=options)).trainer.sparse
    assert found is not None
    return found


@pytest.mark.parametrize("method", ["static", "set", "rigl", "granet"])
def test_the_largest_weights_begin_in_the_same_numbers_as_random_ones(method: MethodName, tmp_path: Path) -> None:
    parts = ("encoder.lidar_encoder.*=0.4",)
    random, largest = (sparse_training(tmp_path, method, start=start, parts=parts).engine for start in ("random", "magnitude"))
    before = dict(small_model().named_parameters())
    now = dict(largest._model.named_parameters())
    differing = 0
    for name, mask in largest.masks.items():
        assert mask.sum() == random.masks[name].sum(), name
        if not mask.all():
            size = before[name].detach().abs()
            assert size[mask].min() >= size[~mask].max(), name
            differing += not torch.equal(mask, random.masks[name])
        assert torch.equal(now[name], before[name] * mask)
    assert differing > 5
    assert largest.report().exploration == pytest.approx(largest.report().density)
    assert largest.steps == largest.updates == 0


def test_the_largest_of_every_group_are_kept_where_a_structure_counts_by_groups() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 6))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    method = sparse_core.RigL(density=0.5, end=9, every=3, structure=Structure(group="row"))
    engine = sparse_core.sparsify(model, optimizer, method, first="largest")
    size, mask = before["0.weight"].abs(), engine.masks["0.weight"]
    assert mask.sum(dim=1).tolist() == [4] * 6
    for row in range(6):
        assert size[row][mask[row]].min() > size[row][~mask[row]].max()
    assert torch.equal(model[0].weight, before["0.weight"] * mask)


def test_without_being_asked_for_the_first_links_are_random(tmp_path: Path) -> None:
    left, right = sparse_training(tmp_path), sparse_training(tmp_path, start="random")
    assert all(torch.equal(mask, right.engine.masks[name]) for name, mask in left.engine.masks.items())


def test_a_method_that_begins_with_all_links_has_no_first_ones_to_choose() -> None:
    with pytest.raises(ValueError, match="gmp begins with all of them"):
        recipe(sparsity=SparsityOptions(method="gmp", start="magnitude"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_dataset(tmp_path_factory.mktemp("data"))


def limtr_train(data: Path, out: Path, *options: str) -> MotionPredictor:
    words = ["train", "--data", str(data), "--out", str(out), "--batch-size", "2", "--device", "cpu", "--weight-decay", "0"]
    assert cli.main([*words, *options]) == 0
    return MotionPredictor.load(out)


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "tiny_preset", small_config)


@pytest.mark.usefixtures("_small")
@pytest.mark.filterwarnings("ignore:.*validation")
def test_a_dense_run_is_made_sparse_and_the_sparse_one_goes_on_densely(data: Path, tmp_path: Path) -> None:
    dense = limtr_train(data, tmp_path / "dense", "--steps", "2")
    still = ("--steps", "3", "--learning-rate", "1e-12", "--sparsity.every", "1")
    sparse = limtr_train(
        data, tmp_path / "sparse", *still, "--init-from", str(tmp_path / "dense"), "--sparsity.method", "static",
        "--sparsity.start", "magnitude", "--sparsity.density", "0.3",
    )  # fmt: skip
    with pytest.warns(UserWarning, match=r"--init-from with --sparsity.start random: static begins with links drawn at random"):
        limtr_train(
            data, tmp_path / "random", "--steps", "1", "--init-from", str(tmp_path / "dense"), "--sparsity.method", "static"
        )
    weights = dict(dense.named_parameters())
    zeros = {}
    for name, value in sparse.named_parameters():
        size, empty = weights[name].abs(), value == 0
        if name.startswith("encoder.") and value.dim() > 1 and empty.any():
            assert size[~empty].min() >= size[empty].max(), name
            zeros[name] = empty
        torch.testing.assert_close(value[~empty], weights[name][~empty], rtol=1e-5, atol=1e-6)
    assert len(zeros) > 2  # the smallest layers keep all links

    again = limtr_train(data, tmp_path / "again", "--steps", "4", "--init-from", str(tmp_path / "sparse"), "--ema-decay", "0")
    learned = {
        name: float((value[zeros[name]] != 0).float().mean()) for name, value in again.named_parameters() if name in zeros
    }
    assert all(share > 0.5 for name, share in learned.items() if "self_attn" not in name), learned
    assert sum(learned.values()) / len(learned) > 0.9
    report = json.loads((tmp_path / "again" / "report.json").read_text())
    assert report["results"]["sparse"] is None
    latest = CheckpointStore(tmp_path / "again").latest()
    assert latest is not None
    state = CheckpointStore.load_state(latest)
    assert state.sparse is None
    assert not [name for name in state.tensors if name.startswith("sparse/")]
    assert "sparse_density" not in (tmp_path / "again" / "log.jsonl").read_text()
