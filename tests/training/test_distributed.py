"""Two ranks with half of every batch each train what one process trains with the whole, and decide everything together."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
import torch.multiprocessing

from evaluation.scoring import SceneReader
from limtr.predictor import MotionPredictor
from tests.training.small import assert_same_tensors, recipe
from tests.training.two_ranks import (
    CASES,
    HANG_LIMIT_S,
    NORM_MASK,
    PARTS,
    RESUMED_METHODS,
    VALIDATION,
    bad_loss,
    checkpoint_tensors,
    normalised,
    rank_main,
    session_of,
    sparse_result,
    sparse_session,
    taken_over,
    trained,
    trainer_of,
)
from training.distributed import ALONE, Ranks, local_device, require_even_split
from training.rank_random import seed_rank
from training.sparsity import MethodName
from training.validation import rank_rows, validate

RANKS = 2
LIMIT_S = 550


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two ranks, in one process group, left what they found; the last of them was killed at the end."""
    folder: Path = tmp_path_factory.mktemp("ranks")
    context = torch.multiprocessing.get_context("spawn")
    processes = [context.Process(target=rank_main, args=(rank, RANKS, str(folder))) for rank in range(RANKS)]
    for process in processes:
        process.start()
    end = time.monotonic() + LIMIT_S
    for process in processes:
        process.join(timeout=max(end - time.monotonic(), 0))
        process.kill()
    assert [(folder / f"{rank}.pt").exists() for rank in range(RANKS)] == [True] * RANKS, "a rank did not end; see its output"
    return folder


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]


@pytest.mark.parametrize("name", CASES)
def test_the_steps_of_two_ranks_are_those_of_one_process(name: str, ranks: list[dict[str, Any]]) -> None:
    alone = trained(CASES[name], ALONE)
    bound = 1e-9 if CASES[name].dtype == torch.float64 else 1e-4
    for found in ranks:
        run = found[name]
        assert len(run["steps"]) == len(alone["steps"]) == CASES[name].steps
        for step, (ours, theirs) in enumerate(zip(run["steps"], alone["steps"], strict=True)):
            assert ours.keys() == theirs.keys()
            for key, value in theirs.items():
                # A batch norm over few targets makes the gradient's relative error that much larger.
                rel = 100 * bound if key == "grad_norm" else bound
                assert ours[key] == pytest.approx(value, rel=rel, abs=1e-9), f"step {step}, {key}"
        assert run["samples"] == alone["samples"]
        # Over all weights: single ones that the model is blind to wander as far as Adam lets them (see LEARNING_RATE).
        wandering = 10 * bound if name == "float32" else bound
        for part in ("weights", "average") if alone["average"] else ("weights",):
            assert distance(run[part], alone[part]) <= wandering
            assert distance(alone["begun"], alone[part]) > 2 * wandering  # else this would say nothing
        for key, value in alone["buffers"].items():
            # Variances over few targets, of activations that follow the wandering weights.
            torch.testing.assert_close(run["buffers"][key], value, rtol=100 * bound, atol=100 * bound)
        assert_same_tensors(run["masks"], alone["masks"])
        assert run["updates"] == alone["updates"]


def distance(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    """Between two models: the root of the sum of all squared differences, relative to the weights of the second."""
    squares = sum(float((left[name].double() - value.double()).square().sum()) for name, value in right.items())
    return math.sqrt(squares / sum(float(value.double().square().sum()) for value in right.values()))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.method is not None])
def test_the_sparse_trainings_do_exchange_links(name: str, ranks: list[dict[str, Any]]) -> None:
    assert ranks[0][name]["updates"] == 5
    longer = trained(CASES[name], ALONE, steps=1)
    assert any(not torch.equal(mask, ranks[0][name]["masks"][key]) for key, mask in longer["masks"].items())


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "sparsity" in case.options])
def test_the_recipes_sparsity_is_that_of_one_process(name: str, ranks: list[dict[str, Any]]) -> None:
    """Beside the comparison above: something happened to its masks, and averages lose links on every rank."""
    method = CASES[name].options["sparsity"].method
    for found in ranks:
        run = found[name]
        assert run["updates"] == (0 if method == "static" else 5)
        changed = any(not torch.equal(mask, run["first masks"][key]) for key, mask in run["masks"].items())
        assert changed == (method != "static")
        assert any(key.startswith("encoder.") for key in run["masks"])
        assert any(key.startswith("decoder.") for key in run["masks"])
        for part in ("weights", "average") if run["average"] else ("weights",):
            for key, mask in run["masks"].items():
                assert not run[part][key][~mask].any()


@pytest.mark.parametrize("method", RESUMED_METHODS)
def test_a_sparse_run_can_change_the_number_of_its_ranks(
    method: MethodName, folder: Path, ranks: list[dict[str, Any]], tmp_path: Path
) -> None:
    straight = sparse_session(tmp_path / "straight", ALONE, method=method)
    straight.run()
    alone = sparse_result(straight)
    copytree(folder / "runs" / f"{method} of two", tmp_path / "run")
    with pytest.warns(UserWarning, match=r"made by 2 process\(es\) and 1 go on"):
        by_one = taken_over(tmp_path / "run", ALONE, method=method)
    by_two = [found["exchanged"][method] for found in ranks]
    for found in (by_one, *by_two):
        assert_same_tensors(found["masks"], alone["masks"])
        assert distance(found["weights"], alone["weights"]) <= 1e-9
        assert found["layers"] == alone["layers"]
        assert found["numbers"] == pytest.approx(alone["numbers"])
    assert_same_tensors(by_two[0]["weights"], by_two[1]["weights"])
    assert alone["numbers"]["updates"] == 3
    assert 0 < alone["numbers"]["sparse_flops_per_agent"] < alone["numbers"]["dense_flops_per_agent"]


def test_some_steps_leave_a_rank_without_lidar_without_targets_or_without_a_scene(ranks: list[dict[str, Any]]) -> None:
    """Else the comparison above would say nothing of these."""

    def differing(name: str, what: int) -> bool:
        steps = zip(*(found[name]["targets and LiDAR"] for found in ranks), strict=True)
        return any(bool(ours[what]) != bool(theirs[what]) for batches in steps for ours, theirs in zip(*batches, strict=True))

    assert differing("a rank without a scene, or without LiDAR", 0)
    assert differing("a rank without a scene, or without LiDAR", 1)
    assert differing("a rank without targets, accumulated", 0)


@pytest.mark.parametrize("name", CASES)
def test_ranks_end_with_the_same_weights_to_the_bit(name: str, ranks: list[dict[str, Any]]) -> None:
    assert_same_tensors(ranks[0][name]["weights"], ranks[1][name]["weights"])
    assert_same_tensors(ranks[0][name]["buffers"], ranks[1][name]["buffers"])


@pytest.mark.parametrize("use_mask", [False, True], ids=["all", "masked"])
def test_batch_norm_over_ranks_is_that_of_the_whole_batch(use_mask: bool, ranks: list[dict[str, Any]]) -> None:
    assert not NORM_MASK[1].any()
    for name, rows in PARTS.items():
        whole = normalised(ALONE, slice(rows[0].start, 4), use_mask)
        for key in ("out", "input gradient"):
            together = torch.cat([found[f"norm {name} {use_mask}"][key] for found in ranks])
            torch.testing.assert_close(together, whole[key], rtol=1e-11, atol=1e-12)
        for key in ("mean", "variance", "weight gradient"):
            for found in ranks:
                torch.testing.assert_close(found[f"norm {name} {use_mask}"][key], whole[key], rtol=1e-11, atol=1e-12)


def test_the_batch_norm_over_ranks_compiles_into_one_graph(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert_same_tensors(found["norm compiled"], found["norm uneven True"])


def test_an_interrupt_of_one_rank_stops_all_at_the_same_step_and_the_run_goes_on_bit_for_bit(
    folder: Path, ranks: list[dict[str, Any]]
) -> None:
    for found in ranks:
        assert found["resumed"]["stopped at"] == 2
        assert_same_tensors(found["resumed"]["parts"], found["resumed"]["straight"])
    straight, parts = (checkpoint_tensors(folder / "runs" / name) for name in ("straight", "parts"))
    assert_same_tensors(straight, parts)
    assert any(name.startswith("rank1/random/") for name in parts)
    drawn = [float(found["resumed"]["drawn"][1]) for found in ranks]
    assert drawn[0] != drawn[1]  # each with generators of its own


def test_the_log_of_several_ranks_has_every_step_once(folder: Path) -> None:
    lines = [json.loads(line) for line in (folder / "runs" / "parts" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [1, 6]
    assert [line["step"] for line in lines if line["kind"] == "validation"] == [4, 6]


def test_a_checkpoint_of_two_ranks_goes_on_in_one_process_with_the_same_scenes(folder: Path, tmp_path: Path) -> None:
    copytree(folder / "runs" / "parts", tmp_path / "run")
    session = session_of(tmp_path / "run", recipe(steps=6, batch_size=2, drop_map=0.5, validate_every=1), ALONE)
    latest = session.store.latest()
    assert latest is not None
    with pytest.warns(UserWarning, match=r"made by 2 process\(es\) and 1 go on"):
        session.restore(latest)
    assert session.trainer.position.step == 6


def test_metrics_over_ranks_are_those_of_one_process(folder: Path, ranks: list[dict[str, Any]]) -> None:
    model = MotionPredictor.load(folder / "runs" / "straight")
    source: SceneReader = VALIDATION
    alone = dict(validate(model, source, len(source)))
    assert alone["minADE"] > 0
    assert [len(rank_rows(len(source), rank, RANKS)) for rank in range(RANKS)] == [19, 16]
    for found in ranks:
        for part in ("validation", "straight validation"):
            assert {name: value for name, value in found["resumed"][part].items() if name != "best_minADE"} == alone


@pytest.mark.parametrize("num_scenes", [0, 1, 16, 40, 97])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_scene_is_validated_by_one_rank_in_batches_that_a_process_alone_would_make(num_scenes: int, count: int) -> None:
    parts = [rank_rows(num_scenes, rank, count) for rank in range(count)]
    assert sorted(row for part in parts for row in part) == list(range(num_scenes))
    for part in parts:
        for start in range(0, len(part), 16):
            batch = part[start : start + 16]
            assert batch[0] % 16 == 0
            assert batch == list(range(batch[0], min(batch[0] + 16, num_scenes)))


def test_a_loss_that_is_not_finite_on_one_rank_stops_all_and_names_its_scenarios(ranks: list[dict[str, Any]]) -> None:
    messages = {found["bad loss"] for found in ranks}
    assert len(messages) == 1
    message = messages.pop()
    assert "the loss became nan at step 1" in message
    batch_of_all = bad_loss(ALONE).split("scenarios of the batch: ")[1].split(". ")[0].split(", ")
    named = message.split("scenarios of the batch: ")[1].split(". ")[0].split(", ")
    assert named == batch_of_all[1:]


def test_a_rank_that_cannot_begin_is_told_to_the_others(ranks: list[dict[str, Any]]) -> None:
    assert {found["prepared"] for found in ranks} == {"NotReadyError: rank 1 of 2: no shards here; copy them"}


def test_a_rank_that_hangs_is_given_up_after_the_stated_time(folder: Path) -> None:
    message = (folder / "hung.txt").read_text()
    assert "rank 0 of 2 lost the others at step 2" in message
    assert f"did not answer within {HANG_LIMIT_S:g} s (--rank-timeout-s)" in message


def test_a_killed_rank_leaves_the_others_with_a_clear_error(folder: Path) -> None:
    message = (folder / "left_alone.txt").read_text()
    assert "rank 0 of 2 lost the others at step 2: one of them died" in message
    assert "--rank-timeout-s" in message
    assert "--resume" in message


@pytest.mark.parametrize(
    ("batch", "workers", "remedy"), [(2, 3, "--batch-size 3, or 2 workers"), (5, 2, "--batch-size 6, or 1 worker$")]
)
def test_a_batch_that_cannot_be_shared_evenly_is_refused_with_the_remedy(batch: int, workers: int, remedy: str) -> None:
    with pytest.raises(ValueError, match=f"a batch of {batch} scenes.*{workers} workers: use {remedy}"):
        require_even_split(batch, workers)
    with pytest.raises(ValueError, match="cannot be shared evenly"):
        trainer_of(recipe(batch_size=batch), Ranks(rank=0, count=workers))


def test_alone_every_collective_gives_back_what_it_was_given() -> None:
    assert ALONE.total([1.5, 2.0]) == [1.5, 2.0]
    assert ALONE.gathered("x") == ["x"]
    assert ALONE.wrapped(torch.nn.Linear(1, 1)) is None


def test_ranks_of_one_machine_do_not_share_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert local_device("auto", 1) == torch.device("cuda", 1)
    assert local_device("cpu", 5) == torch.device("cpu")
    with pytest.raises(ValueError, match="rank 2 of this machine has no GPU, there are 2"):
        local_device("cuda", 2)
    with pytest.raises(ValueError, match="cannot share one GPU"):
        local_device("cuda:0", 1)


class SecondRank(Ranks):
    """A rank that hears the first one's clock, and is else alone."""

    STEP_S = 5.0

    def total(self, values: Sequence[float]) -> list[float]:
        assert all(value == 0.0 for value in values[:-1])  # its own clock does not count
        return [self.STEP_S, *values[1:]] if len(values) == 2 else list(values)

    def wrapped(self, model: torch.nn.Module) -> None:
        return None


def test_the_first_ranks_clock_is_that_of_all() -> None:
    """Else they would not save, or end a time budget, at the same step, and wait for each other for ever."""
    trainer = trainer_of(recipe(steps=2, batch_size=2), SecondRank(rank=1, count=2))
    trainer.run(on_step=lambda numbers: None, on_epoch=lambda: None)
    assert trainer.position.elapsed_s == 2 * SecondRank.STEP_S


def test_every_rank_draws_numbers_of_its_own_and_the_first_those_of_a_process_alone() -> None:
    def drawn(rank: int, seed: int = 7) -> float:
        torch.manual_seed(seed)
        seed_rank(seed, rank)
        return float(torch.rand((), dtype=torch.float64))

    assert drawn(0) == float(torch.rand((), dtype=torch.float64, generator=torch.Generator().manual_seed(7)))
    assert len({drawn(rank) for rank in range(8)} | {drawn(1, seed=8)}) == 9
    assert drawn(3) == drawn(3)
