"""One optimizer step: rate, accumulation, clipping, averaging, augmentation, arithmetic."""

from pathlib import Path
from typing import Any

import pytest
import torch

from limtr.agent_batch import AgentBatch
from limtr.batch import collate
from limtr.decoder import DecoderOutputs
from tests.training.small import SCENES, recipe, session, small_model
from training.ema import WeightAverage
from training.schedules import learning_rate


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_accumulated_batches_count_alike(tmp_path: Path) -> None:
    part = session(tmp_path, recipe(steps=1, accumulate=3, clip_norm=1e12, weight_decay=0.0))
    trainer, gradients = part.trainer, []
    batches = [collate(SCENES[start : start + 2], num_lidar_points=8) for start in (0, 2, 4)]
    for group in ([batches[0]], [batches[1]], [batches[2]], batches):
        trainer.model.load_state_dict(small_model().state_dict())
        trainer._step(group)
        gradients.append(torch.cat([value.grad.flatten() for value in trainer.model.parameters() if value.grad is not None]))
    mean = torch.stack(gradients[:3]).mean(dim=0)
    assert torch.allclose(gradients[3], mean, rtol=1e-3, atol=1e-4 * float(mean.abs().max()))


def test_gradients_are_clipped_and_the_norm_before_is_told(tmp_path: Path) -> None:
    trainer = session(tmp_path, recipe(steps=1, clip_norm=0.5)).trainer
    numbers = trainer._step([collate(SCENES[:2], num_lidar_points=8)])
    norm = torch.stack([value.grad.norm() for value in trainer.model.parameters() if value.grad is not None]).norm()
    assert numbers["grad_norm"] > 0.5
    assert float(norm) == pytest.approx(0.5, rel=1e-3)


def test_the_rate_of_a_step_is_that_of_the_share_done_before_it(tmp_path: Path) -> None:
    trainer = session(tmp_path, recipe(steps=4, schedule="cosine")).trainer
    rates: list[float] = []
    trainer.run(on_step=lambda numbers: rates.append(numbers["learning_rate"]), on_epoch=lambda: None)
    assert rates == pytest.approx([learning_rate("cosine", 1e-3, step / 4) for step in range(4)])
    assert {group["lr"] for group in trainer.optimizer.param_groups} == {rates[-1]}


@pytest.mark.parametrize(("step", "decay"), [(1, 2 / 11), (10_000, 0.9)])
def test_the_average_moves_by_one_minus_decay(step: int, decay: float) -> None:
    model = torch.nn.Linear(2, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    average = WeightAverage(model, 0.9)
    torch.nn.init.ones_(model.weight)
    average.update(model, step)
    assert average.average["weight"].tolist() == [[pytest.approx(1 - decay)] * 2]


def test_a_step_trains_in_training_mode_with_the_recipes_decay_and_precision(tmp_path: Path) -> None:
    trainer = session(tmp_path, recipe(steps=1, weight_decay=0.25, precision="bf16")).trainer
    trainer.model.eval()
    precisions: list[torch.dtype] = []
    decode = trainer.model.decode

    def watched(agents: AgentBatch) -> DecoderOutputs:
        assert trainer.model.training
        precisions.append(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32)
        return decode(agents)

    trainer.model.decode = watched  # type: ignore[method-assign]
    trainer._step([collate(SCENES[:1], num_lidar_points=8)])
    assert precisions == [torch.bfloat16]
    assert {group["weight_decay"] for group in trainer.optimizer.param_groups} == {0.25}


def test_a_share_of_the_maps_is_hidden_in_training(tmp_path: Path) -> None:
    trainer = session(tmp_path, recipe(steps=1, drop_map=0.25)).trainer
    whole, hidden = 0, 0
    decode = trainer.model.decode

    def watched(agents: AgentBatch) -> DecoderOutputs:
        nonlocal whole, hidden
        seen = agents.polyline_mask.flatten(1).any(dim=1)
        whole, hidden = whole + int(seen.sum()), hidden + int((~seen).sum())
        return decode(agents)

    trainer.model.decode = watched  # type: ignore[method-assign]
    for _ in range(4):
        trainer._step([collate(SCENES, num_lidar_points=8)])
    assert 0 < hidden < whole
