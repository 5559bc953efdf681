"""A sparse training: zeros where there are no links, in the averaged weights too, resumed bit for bit, told in the log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from evaluation import zero_weights
from evaluation.prediction_cost import prediction_cost
from limtr.predictor import MotionPredictor
from sparse_core import masks
from tests.training.small import assert_same_tensors, recipe, session, small_model
from training import loop
from training.checkpoint import CheckpointStore, require_same
from training.config import Recipe
from training.session import Session
from training.sparse_flops import prediction_flops
from training.sparsity import DEFAULTS, MethodName, Sparsity, SparsityOptions


def sparse_recipe(method: MethodName = "rigl", steps: int = 12, **given: Any) -> Recipe:
    values = {"density": 0.3, "every": 3, **given}
    return recipe(steps=steps, ema_decay=0.9, sparsity=SparsityOptions(method=method, **values))


def trained(run: Path, wanted: Recipe) -> Session:
    made = session(run, wanted)
    made.run()
    return made


def links(made: Session) -> dict[str, torch.Tensor]:
    assert made.trainer.sparse is not None
    return dict(made.trainer.sparse.engine.masks)


@pytest.mark.parametrize("method", get_args(MethodName))
def test_weights_and_their_average_are_zero_where_there_are_no_links(method: MethodName, tmp_path: Path) -> None:
    made = trained(tmp_path, sparse_recipe(method))
    found = links(made)
    assert sum(int(mask.sum()) for mask in found.values()) == pytest.approx(
        0.3 * sum(mask.numel() for mask in found.values()), abs=len(found)
    )
    named = dict(made.trainer.model.named_parameters())
    assert made.trainer.average is not None
    for name, mask in found.items():
        assert name.startswith("encoder.")
        assert not named[name][~mask].any()
        assert not made.trainer.average.average[name][~mask].any()
    saved = MotionPredictor.load(made.store.latest())
    assert all(not value[~found[name]].any() for name, value in saved.named_parameters() if name in found)
    assert made.trainer.sparse is not None
    assert made.trainer.sparse.engine.updates == (0 if method == "static" else 3)
    summary = made.trainer.sparse.summary()
    assert summary["links"] == sum(int(mask.sum()) for mask in found.values()) < summary["weights"]


def averages(made: Session) -> dict[str, torch.Tensor]:
    assert made.trainer.average is not None
    return made.trainer.average.average


def run_until(made: Session, last: int) -> None:
    """Train as if an interrupt came in step `last`."""
    run = made.trainer.run

    def stopping(*, on_step: Any, on_epoch: Any) -> None:
        def watched(numbers: Any) -> None:
            on_step(numbers)
            made.trainer.interrupt.requested |= made.trainer.position.step == last

        run(on_step=watched, on_epoch=on_epoch)

    made.trainer.run = stopping  # type: ignore[method-assign]
    made.run()


@pytest.mark.parametrize("method", ["rigl", "set", "snfs", "gmp", "srigl", "dsr", "chts", "top-kast", "sr-ste"])
def test_an_interrupted_sparse_training_goes_on_bit_for_bit(method: MethodName, tmp_path: Path) -> None:
    wanted = sparse_recipe(method)
    whole = trained(tmp_path / "whole", wanted)
    first = session(tmp_path / "parts", wanted)
    run_until(first, 5)
    assert first.trainer.position.step == 5
    second = session(tmp_path / "parts", wanted, seed=7)  # other initial weights, all of them replaced
    second.restore(second.store.latest())  # type: ignore[arg-type]
    second.run()
    assert_same_tensors(dict(second.trainer.model.state_dict()), dict(whole.trainer.model.state_dict()))
    assert_same_tensors(links(second), links(whole))
    assert_same_tensors(averages(second), averages(whole))
    assert second.trainer.sparse is not None
    assert whole.trainer.sparse is not None
    assert second.trainer.sparse.summary() == whole.trainer.sparse.summary()
    assert whole.trainer.sparse.summary()["updates"] > 0


def test_a_resumed_training_tells_what_the_whole_one_tells(tmp_path: Path) -> None:
    wanted = sparse_recipe("set", steps=11, every=2)
    assert trained(tmp_path / "whole", wanted).trainer.finished
    run_until(session(tmp_path / "parts", wanted), 9)  # after the last update; the last line was of step 1
    second = session(tmp_path / "parts", wanted)
    second.restore(second.store.latest())  # type: ignore[arg-type]
    second.run()
    told = [
        [{key: value for key, value in json.loads(line).items() if key.startswith(("step", "sparse_"))} for line in lines]
        for lines in ((tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "parts"))
    ]
    assert told[0] == told[1]
    assert told[0][1]["sparse_churn"] > 0.0


@pytest.mark.parametrize("method", ["top-kast", "sr-ste"])
def test_the_average_of_a_link_that_comes_back_begins_where_it_is(method: MethodName, tmp_path: Path) -> None:
    made = session(tmp_path, sparse_recipe(method, every=1, until=1.0))
    sparse, average = made.trainer.sparse, made.trainer.average
    assert sparse is not None
    assert average is not None
    cut, came, stayed = sparse.cut, 0, 0
    first = {name: mask.clone() for name, mask in links(made).items()}
    last = dict(first)

    def watched(given: Any) -> None:
        nonlocal came, stayed
        before = dict(last)
        cut(given)
        last.update({name: mask.clone() for name, mask in links(made).items()})
        for name, mask in links(made).items():
            new = mask & ~before[name]
            came += int(new.sum())
            weight = made.trainer.model.get_parameter(name).detach()
            assert torch.equal(average.average[name][new], weight[new])
            older = mask & before[name] & ~first[name]  # came in an earlier step: averaged since then
            stayed += int((average.average[name][older] != weight[older]).sum())
            assert not average.average[name][~mask].any()

    sparse.cut = watched  # type: ignore[method-assign]
    made.run()
    assert came > 0
    assert stayed > 0


def test_two_of_four_inputs_have_links_and_layers_that_cannot_are_named(tmp_path: Path) -> None:
    wanted = {"density": 0.5, "group": 4, "include": ("encoder.layers.*",)}
    found = links(trained(tmp_path / "pairs", sparse_recipe("sr-ste", **wanted)))
    assert found
    for mask in found.values():
        assert (mask.view(-1, 4).sum(1) == 2).all()
    with pytest.raises(ValueError, match=r"encoder\..*inputs cannot be cut into groups of 4; exclude this weight"):
        session(tmp_path / "all", sparse_recipe("sr-ste", density=0.5, group=4))


def test_the_log_tells_density_exploration_and_churn(tmp_path: Path) -> None:
    made = trained(tmp_path, sparse_recipe(steps=12))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    told = [line for line in lines if "sparse_density" in line]
    assert [line["sparse_updates"] for line in told] == [0, 3, 3]
    assert told[0]["sparse_churn"] == 0.0
    assert told[1]["sparse_churn"] > 0.0
    assert told[0]["sparse_exploration"] < told[1]["sparse_exploration"] == told[2]["sparse_exploration"]
    assert made.summary()["sparse"]["density"] == pytest.approx(told[-1]["sparse_density"])  # type: ignore[index]


def test_the_log_tells_the_operations_of_a_prediction_at_the_present_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = []

    def counting(*arguments: Any) -> Any:
        counted.append(arguments)
        return prediction_flops(*arguments)

    monkeypatch.setattr(loop, "prediction_flops", counting)
    made = session(tmp_path, sparse_recipe("gmp"))
    scenes = made.trainer.scenes
    made.trainer.run(on_step=lambda numbers: None, on_epoch=lambda: None)
    assert not counted  # not in a step
    told = [made.trainer.sparse.numbers() for _ in range(3)][-1]  # type: ignore[union-attr]
    assert len(counted) == 1
    monkeypatch.setattr(zero_weights, "MIN_ZERO_SHARE", 1e-9)  # else layers with hardly a zero count as dense there
    expected = prediction_cost(made.trainer.model, [scenes.as_read(index) for index in range(len(scenes))])
    assert expected is not None
    assert expected.links < expected.parameters
    assert told["dense_flops_per_agent"] == pytest.approx(expected.flops)
    assert told["sparse_flops_per_agent"] == pytest.approx(expected.sparse_flops, rel=1e-6)
    assert made.trainer.model.training
    events = [json.loads(line) for line in trained_log(tmp_path / "log", sparse_recipe("gmp"))]
    flops = [event["sparse_flops_per_agent"] for event in events]
    assert flops[0] == events[0]["dense_flops_per_agent"] > flops[-1]
    assert flops[-1] == pytest.approx(told["sparse_flops_per_agent"])


def trained_log(run: Path, wanted: Recipe) -> list[str]:
    trained(run, wanted)
    return [line for line in (run / "log.jsonl").read_text().splitlines() if "sparse_density" in line]


def test_telling_the_operations_changes_nothing_in_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    telling = trained(tmp_path / "telling", sparse_recipe())
    monkeypatch.setattr(loop, "prediction_flops", lambda *arguments: None)
    silent = trained(tmp_path / "silent", sparse_recipe())
    assert "sparse_flops_per_agent" in telling.trainer.sparse.numbers()  # type: ignore[union-attr]
    assert "sparse_flops_per_agent" not in silent.trainer.sparse.numbers()  # type: ignore[union-attr]
    assert_same_tensors(dict(telling.trainer.model.state_dict()), dict(silent.trainer.model.state_dict()))


def test_operations_are_of_the_scenes_as_they_were_read_whatever_the_epoch_drew(tmp_path: Path) -> None:
    scenes = session(tmp_path, recipe(steps=4, mirror=0.5, drop_vehicles=0.9)).trainer.scenes
    found = []
    for scenes.epoch in range(3):
        found.append(prediction_flops(small_model(), scenes))
    assert found[0] is not None
    assert found[0] == found[1] == found[2]
    assert found[0].at({}) == found[0].dense
    name = "encoder.layers.0.linear1.weight"
    assert found[0].at({name: 0.25}) == pytest.approx(found[0].dense - 0.75 * found[0].by_weight[name])


def test_churn_is_the_share_of_links_that_changed_since_the_last_line(tmp_path: Path) -> None:
    made = session(tmp_path, sparse_recipe(every=1, until=1.0))
    assert made.trainer.sparse is not None
    before = {name: mask.clone() for name, mask in links(made).items()}
    made.run()
    made.trainer.sparse._before = before
    made.trainer.sparse._updates_before = 0
    assert made.trainer.sparse.numbers()["sparse_churn"] == pytest.approx(masks.churn(before, links(made)).total)
    assert made.trainer.sparse.numbers()["sparse_churn"] == 0.0


def test_links_that_are_pruned_and_not_replaced_count_as_churn(tmp_path: Path) -> None:
    made = session(tmp_path, sparse_recipe("gmp", steps=3, every=1, until=1.0))
    assert made.trainer.sparse is not None
    made.trainer.run(on_step=lambda numbers: None, on_epoch=lambda: None)
    told = made.trainer.sparse.numbers()
    assert told["sparse_churn"] == pytest.approx(1.0 - told["sparse_density"]) == pytest.approx(0.7, abs=0.01)


def test_parts_have_densities_of_their_own(tmp_path: Path) -> None:
    made = session(tmp_path, sparse_recipe(include=("*",), parts=("decoder.*=0.5", "encoder.lidar_encoder.*=1.0")))
    assert made.trainer.sparse is not None
    layers = made.trainer.sparse.summary()["layers"]
    for name, density in layers.items():
        if name.startswith("decoder."):
            assert density == pytest.approx(0.5, abs=0.03)
        elif name.startswith("encoder.lidar_encoder."):
            assert density == 1.0
    assert any(name.startswith("encoder.layers.") for name in layers)


def test_packed_attention_projections_become_sparse_with_their_part(tmp_path: Path) -> None:
    packed = "encoder.layers.0.self_attn.in_proj_weight"
    for include in (("encoder.*",), ("*",), ("encoder.layers.0.self_attn",), ("*.in_proj_weight",), (packed,)):
        made = session(tmp_path, sparse_recipe(include=include))
        assert packed in links(made), include
    assert packed not in links(session(tmp_path, sparse_recipe(include=("decoder.*",))))
    assert packed not in links(session(tmp_path, sparse_recipe(exclude=("*.in_proj_weight",))))


def test_the_seed_of_the_recipe_draws_the_first_links(tmp_path: Path) -> None:
    wanted = SparsityOptions(method="rigl", density=0.3, every=1)
    one, again, other = (session(tmp_path, recipe(seed=seed, sparsity=wanted)) for seed in (1, 1, 2))
    assert_same_tensors(links(one), links(again))
    thin = {name: mask for name, mask in links(one).items() if not mask.all()}
    assert len(thin) > 2
    assert all(not torch.equal(mask, links(other)[name]) for name, mask in thin.items())


def test_excluded_weights_stay_dense(tmp_path: Path) -> None:
    made = session(tmp_path, sparse_recipe(exclude=("encoder.layers.*",)))
    assert not any(name.startswith("encoder.layers.") for name in links(made))


def test_weights_can_be_scaled_to_their_number_of_links(tmp_path: Path) -> None:
    plain, scaled = (session(tmp_path / str(scale), sparse_recipe(scale_weights=scale)) for scale in (False, True))
    thin = [name for name, mask in links(plain).items() if not mask.all()]
    sizes = [
        sum(float(dict(made.trainer.model.named_parameters())[name].detach().abs().sum()) for name in thin)
        for made in (plain, scaled)
    ]
    assert thin
    assert sizes[1] > 1.2 * sizes[0]


def test_srigl_ablates_neurons_but_no_output_of_a_head(tmp_path: Path) -> None:
    made = trained(tmp_path, sparse_recipe("srigl", density=0.1, every=1, until=1.0, include=("*",)))
    alive = {name: bool(mask.flatten(1).any(dim=1).all()) for name, mask in links(made).items()}
    heads = {name for name in alive if "_head" in name or ".dense_future." in name}
    assert "encoder.lidar_side_head.weight" in heads
    assert len(heads) > 4
    assert all(alive[name] for name in heads)
    assert not all(alive.values())


def test_a_pattern_that_matches_nothing_names_near_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"encodr.*near names"):
        session(tmp_path, sparse_recipe(include=("encodr.layers*",)))


def test_a_time_budget_alone_knows_no_last_step(tmp_path: Path) -> None:
    options = SparsityOptions(method="rigl", every=3)
    with pytest.raises(ValueError, match="give --steps or --epochs"):
        session(tmp_path, recipe(steps=None, minutes=0.01, sparsity=options))
    session(tmp_path, recipe(steps=None, minutes=0.01, sparsity=SparsityOptions(method="static")))


def test_another_sparsity_does_not_go_on_with_a_run(tmp_path: Path) -> None:
    made = trained(tmp_path, sparse_recipe())
    latest = made.store.latest()
    assert latest is not None
    state = CheckpointStore.load_state(latest)
    for wanted, message in [
        (sparse_recipe(density=0.2), r"differently \(sparsity\.density: was 0\.3, is 0\.2\)"),
        (sparse_recipe("set"), r"differently \(sparsity\.method: was rigl, is set\)"),
        (recipe(steps=12, ema_decay=0.9), r"sparsity\.method: was rigl, is None"),
    ]:
        with pytest.raises(ValueError, match=message):
            require_same(state, wanted, "data", tmp_path)
        with pytest.raises(ValueError, match="trained differently"):
            session(tmp_path, wanted).restore(latest)


def test_a_state_without_its_masks_is_refused(tmp_path: Path) -> None:
    made = trained(tmp_path, sparse_recipe())
    assert made.trainer.sparse is not None
    tensors, plain = made.trainer.sparse.state()
    for kind in ("mask", "explored", "told"):
        name = next(name for name in tensors if name.endswith(f"/{kind}"))
        with pytest.raises(ValueError, match=f"training state lacks '{name}'"):
            made.trainer.sparse.restore({key: value for key, value in tensors.items() if key != name}, plain)


def test_a_saved_sparsity_is_the_recipes() -> None:
    assert Sparsity(**{"method": "rigl", **DEFAULTS, "density": 0.3, "every": 3}) == sparse_recipe().sparsity
