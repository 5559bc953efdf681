"""The layers of encoder and decoder: where dropout acts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from limtr.decoder_layer import DecoderBranch
from limtr.encoder import EncoderLayer
from limtr.neighbors import Neighbors, nearest_tokens

EVERYBODY = Neighbors(torch.arange(5).expand(2, 5, 5), torch.ones((2, 5, 5), dtype=torch.bool))


class DropEverything(nn.Module):
    """Dropout at its limit: what passes through is gone."""

    p = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)


def test_every_branch_of_a_decoder_layer_can_be_dropped() -> None:
    torch.manual_seed(0)
    layer = DecoderBranch(8, 2, 0.1, "dense", is_first=True)
    layer.dropout = DropEverything()  # type: ignore[assignment]
    content = torch.randn(2, 3, 8)
    memory = [torch.randn(2, 5, 8) for _ in range(2)]
    allowed = torch.ones((2, 1, 5), dtype=torch.bool)
    found = layer(content, torch.randn(2, 3, 8), torch.randn(2, 3, 8), *memory, allowed, 5)
    torch.testing.assert_close(found, layer.norm3(layer.norm2(layer.norm1(content))))


def test_every_branch_of_an_encoder_layer_can_be_dropped() -> None:
    torch.manual_seed(0)
    layer = EncoderLayer(8, 2, 0.1, "auto")
    layer.dropout = DropEverything()  # type: ignore[assignment]
    x = torch.randn(2, 5, 8)
    found = layer(x, torch.randn(2, 5, 8), EVERYBODY)
    torch.testing.assert_close(found, layer.norm2(layer.norm1(x)))


def test_the_hidden_layer_of_the_feed_forward_part_is_dropped_too() -> None:
    torch.manual_seed(0)
    encoder, decoder = EncoderLayer(8, 2, 0.1, "auto"), DecoderBranch(8, 2, 0.1, "dense", is_first=False)
    x, allowed = torch.randn(2, 5, 8), torch.ones((2, 5, 5), dtype=torch.bool)
    for layer, arguments, residuals in ((encoder, (x, x, EVERYBODY), 2), (decoder, (x, x, x, x, x, allowed, 5), 3)):
        widths: list[int] = []
        layer.dropout.register_forward_hook(lambda module, given, result, seen=widths: seen.append(result.shape[-1]))
        layer(*arguments)
        assert sorted(widths) == [8] * residuals + [32]


@pytest.mark.parametrize(("training", "tokens"), [(True, 6), (False, 6), (False, 90)])
def test_every_way_of_computing_local_attention_gives_the_same_token_features(training: bool, tokens: int) -> None:
    torch.manual_seed(0)
    neighbors = nearest_tokens(torch.randn(2, tokens, 3), torch.rand(2, tokens) < 0.8, 5)
    x, code = torch.randn(2, tokens, 8), torch.randn(2, tokens, 8)
    layer = EncoderLayer(8, 2, 1e-9 if training else 0.1, "auto").train(training)
    found = []
    for path in ("auto", "dense", "gathered"):
        layer.self_attn.path = path  # type: ignore[assignment]
        found.append(layer(x, code, neighbors))
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])
