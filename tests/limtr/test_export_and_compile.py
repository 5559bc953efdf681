"""The predictor as a graph."""

from __future__ import annotations

import pytest
import torch

from limtr.export import callable_of, export_predictor, tensor_inputs
from limtr.loss import compute_loss
from limtr.predictor import MotionPredictor
from tests.limtr.model_builders import one_layer_config, random_batch, with_garbage


@pytest.mark.slow
def test_an_exported_program_predicts_as_the_model() -> None:
    config = one_layer_config()
    torch.manual_seed(0)
    model = MotionPredictor(config).eval()
    program = export_predictor(model, random_batch(config, dtype=torch.float32))
    other = with_garbage(random_batch(config, seed=5, dtype=torch.float32), float("nan"))
    trajectories, scores, *_ = callable_of(program)(**tensor_inputs(other))
    expected = model(other)
    torch.testing.assert_close(trajectories, expected.trajectories, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scores, expected.scores, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_compiled_model_trains_as_the_plain_one() -> None:
    config = one_layer_config()
    torch.manual_seed(0)
    # In float64: norms over a handful of rows blow float32's rounding up beyond any useful tolerance.
    plain, other = MotionPredictor(config).double(), MotionPredictor(config).double()
    other.load_state_dict(plain.state_dict())
    # The graph is what can differ; generating code for it takes minutes on a CPU.
    compiled = torch.compile(other, backend="aot_eager")
    batch = random_batch(config)
    for model in (plain.train(), compiled.train()):
        compute_loss(model(batch), batch, config).total.backward()
    largest = max(float(parameter.grad.abs().max()) for parameter in plain.parameters())
    for (name, parameter), found in zip(plain.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(
            found.grad, parameter.grad, rtol=1e-7, atol=1e-11 * largest, msg=lambda m, n=name: f"{n}: {m}"
        )
    torch.testing.assert_close(other.state_dict(), plain.state_dict(), rtol=1e-9, atol=1e-9)
