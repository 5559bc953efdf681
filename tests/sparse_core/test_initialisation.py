"""Weights that begin as large as a sparse layer needs them."""

import pytest
import torch
from torch import nn

import sparse_core as sc
from sparse_core.initialisation import scale_to_fan_in


def test_every_output_is_scaled_by_its_own_number_of_links() -> None:
    model = nn.Linear(4, 3, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    mask = torch.tensor([[True, False, False, False], [True, True, True, True], [False, False, False, False]])
    scale_to_fan_in(model, {"weight": mask})
    torch.testing.assert_close(model.weight.detach(), torch.tensor([[2.0] * 4, [1.0] * 4, [1.0] * 4]))


def test_a_convolution_counts_taps_and_a_transposed_one_its_inputs() -> None:
    conv = nn.Conv1d(2, 1, 2, bias=False)
    with torch.no_grad():
        conv.weight.fill_(1.0)
    scale_to_fan_in(conv, {"weight": torch.tensor([[[True, False], [False, False]]])})
    torch.testing.assert_close(conv.weight.detach(), torch.full((1, 2, 2), 2.0))

    up = nn.ConvTranspose1d(2, 2, 1, bias=False)
    with torch.no_grad():
        up.weight.fill_(1.0)
    scale_to_fan_in(up, {"weight": torch.tensor([[[True], [True]], [[False], [True]]])})
    torch.testing.assert_close(up.weight.detach()[:, :, 0], torch.tensor([[2**0.5, 1.0], [2**0.5, 1.0]]))


def test_the_signal_of_a_sparse_net_is_as_strong_as_the_dense_ones() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(400, 400, bias=False) for _ in range(3)])
    x = torch.randn(200, 400)
    dense = float(model(x).detach().std())
    engine = sc.sparsify(model, torch.optim.SGD(model.parameters(), 0.1), sc.Static(0.05))
    thin = float(model(x).detach().std())
    scale_to_fan_in(model, engine.masks)
    assert thin < 0.05 * dense
    assert float(model(x).detach().std()) == pytest.approx(dense, rel=0.2)
    assert all(not bool(model.get_parameter(name)[~mask].any()) for name, mask in engine.masks.items())


def test_a_mask_of_another_model_changes_nothing() -> None:
    model = nn.Linear(4, 3)
    before = model.weight.detach().clone()
    with pytest.raises(ValueError, match="elsewhere"):
        scale_to_fan_in(model, {"weight": torch.eye(3, 4).bool(), "elsewhere": torch.eye(3, 4).bool()})
    assert torch.equal(model.weight, before)
