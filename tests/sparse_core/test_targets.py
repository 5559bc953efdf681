"""What becomes sparse by default, by pattern, and never."""

import pytest
import torch
from torch import nn

import sparse_core as sc


class Everything(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.bag = nn.EmbeddingBag(5, 8)
        self.first = nn.Linear(8, 8)
        self.conv1 = nn.Conv1d(8, 4, 3)
        self.conv2 = nn.Conv2d(4, 4, 3)
        self.conv3 = nn.Conv3d(4, 4, 3)
        self.packed = nn.MultiheadAttention(8, 2, add_bias_kv=True)
        self.split = nn.MultiheadAttention(8, 2, kdim=4, vdim=6)
        self.up = nn.ConvTranspose2d(4, 4, 3)
        self.norm = nn.LayerNorm((4, 8))
        self.batch = nn.BatchNorm2d(4)
        self.loose = nn.Parameter(torch.randn(3, 3))


DEFAULT = [
    "first.weight",
    "conv1.weight",
    "conv2.weight",
    "conv3.weight",
    "packed.in_proj_weight",
    "packed.out_proj.weight",
    "split.q_proj_weight",
    "split.k_proj_weight",
    "split.v_proj_weight",
    "split.out_proj.weight",
]


def names(model: nn.Module, held: list[nn.Parameter] | None = None, **options: object) -> list[str]:
    optimizer = torch.optim.SGD(list(model.parameters()) if held is None else held, lr=0.1)
    engine = sc.sparsify(model, optimizer, sc.Static(0.5), **options)  # type: ignore[arg-type]
    engine.detach()
    return list(engine.masks)


def test_default() -> None:
    assert names(Everything()) == DEFAULT


def test_an_old_style_weight_norm_leaves_nothing_to_make_sparse_but_on_request() -> None:
    with pytest.warns(FutureWarning):
        model = nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 4))
    assert names(model) == ["1.weight"]


@pytest.mark.parametrize(
    ("include", "expected"),
    [
        ("conv*", ["conv1.weight", "conv2.weight", "conv3.weight"]),
        ("packed", ["packed.in_proj_weight"]),
        ("packed*", ["packed.in_proj_weight", "packed.out_proj.weight"]),
        (["first", "loose"], ["loose", "first.weight"]),
        ("up", ["up.weight"]),
        (lambda name, parameter: parameter.dim() == 5, ["conv3.weight"]),
    ],
)
def test_include(include: object, expected: list[str]) -> None:
    assert names(Everything(), include=include) == expected


@pytest.mark.parametrize("exclude", ["conv*", lambda name, parameter: name.startswith("conv")])
def test_exclude(exclude: object) -> None:
    assert names(Everything(), exclude=exclude) == [name for name in DEFAULT if not name.startswith("conv")]


@pytest.mark.parametrize(
    "never", ["embed.weight", "bag.weight", "norm.weight", "batch.weight", "first.bias", "packed.bias_k", "packed.in_proj_bias"]
)
def test_norms_biases_and_embeddings_never(never: str) -> None:
    with pytest.raises(ValueError, match="norm, bias or embedding"):
        names(Everything(), include=never)


@pytest.mark.parametrize("argument", ["include", "exclude"])
def test_a_pattern_that_matches_nothing_names_what_is_near(argument: str) -> None:
    with pytest.raises(ValueError, match=rf"{argument} 'frist.weight' matches no weight.*near names: first.weight"):
        names(Everything(), **{argument: "frist.weight"})
    with pytest.raises(ValueError, match=rf"{argument}: the predicate .* accepts no weight"):
        names(Everything(), **{argument: lambda name, parameter: False})
    with pytest.raises(ValueError, match="conv9"):
        names(Everything(), **{argument: ["conv1", "conv9*"]})


def test_tied_weights_are_one() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    assert names(model) == ["0.weight"]


@pytest.mark.parametrize("embedding_first", [True, False])
def test_a_weight_tied_to_an_embedding_is_an_embedding(embedding_first: bool) -> None:
    embedding, head, other = nn.Embedding(6, 4), nn.Linear(4, 6), nn.Linear(4, 4)
    head.weight = embedding.weight
    order = [embedding, other, head] if embedding_first else [head, other, embedding]
    assert names(nn.Sequential(*order)) == ["1.weight"]


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile], ids=["DataParallel", "compile"])
def test_names_know_nothing_of_wrappers(wrap: object) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    assert names(wrap(model)) == ["0.weight", "1.weight"]  # type: ignore[operator]
    assert names(nn.Sequential(wrap(model), nn.Linear(2, 2))) == ["0.0.weight", "0.1.weight", "1.weight"]  # type: ignore[operator]


def test_a_module_may_be_called_module() -> None:
    assert names(nn.ModuleDict({"module": nn.Linear(4, 4)})) == ["module.weight"]


def test_what_the_optimizer_does_not_hold_is_skipped() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    assert names(model, list(model[1].parameters())) == ["1.weight"]
    assert names(model, list(model[1].parameters()), include="*") == ["1.weight"]
    with pytest.raises(ValueError, match=r"include '0' matches \['0.weight'\], which this optimizer does not hold"):
        names(model, list(model[1].parameters()), include=["1", "0"])


def test_frozen_weights_are_skipped_unless_asked_for() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[0].weight.requires_grad_(False)
    assert names(model) == ["1.weight"]
    with pytest.raises(ValueError, match=r"0.weight does not require a gradient"):
        names(model, include="0.weight")


def test_a_model_without_such_weights() -> None:
    model = nn.Sequential(nn.LayerNorm(4))
    with pytest.raises(ValueError, match="nothing to make sparse"):
        names(model)
