"""What a method refuses when it is made, and its clock as pure functions."""

from collections.abc import Callable

import pytest
import torch

import sparse_core as sc
from sparse_core import Method, Structure, layout, schedules, scores
from sparse_core.method import gradient_step, normal, uniform_within
from sparse_core.scores import Context


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"density": 0.0}, "Method.density is 0.0"),
        ({"density": 1.5}, "Method.density is 1.5"),
        ({"density": -0.1}, "Method.density is -0.1"),
        ({"density": float("nan")}, "Method.density is nan"),
        ({"density": None}, "Method.density is None, but the layout ERK"),
        ({"density": schedules.Cubic(1.0, 0.0), "every": 1, "end": 5}, "Method.density is 0.0 at step 5"),
        ({"density": schedules.Cubic(1.0, 0.1), "every": 1}, "give the method an `end`"),
        ({"every": 0}, "Method.every is 0"),
        ({"offset": -1}, "Method.offset is -1"),
        ({"end": 0}, "Method.end is 0"),
        ({"scope": "model"}, "Method.scope is 'model'"),
        ({"on_update": "wait"}, "Method.on_update is 'wait'"),
        ({"final_prune": True}, "Method.final_prune needs an `end`"),
        ({"grow": scores.random, "rate": 1.0}, "Method.rate is 1.0"),
        ({"grow": scores.random, "rate": -0.1}, "Method.rate is -0.1"),
        ({"grow": scores.random, "rate": 0.3, "drop": None}, "Method.rate exchanges links, but Method.drop is None"),
        ({"scope": "global", "structure": Structure(group="row")}, "Method.scope 'global' ranks links"),
        ({"scope": "shrink", "structure": Structure(group=4)}, "Method.scope 'shrink' ranks links"),
        ({"share": scores.magnitude, "structure": Structure(group="row")}, "Method.share moves links"),
        ({"density": schedules.Linear(1.0, 0.1), "every": 1, "end": 5, "drop": None}, "Method.density falls from 1.0"),
        ({"density": schedules.Linear(0.1, 1.0), "every": 1, "end": 5}, "Method.density rises from 0.1"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value,
)
def test_values_out_of_range(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        Method(**({"density": 0.5} | fields))  # type: ignore[arg-type]


def test_a_layout_may_decide_the_density() -> None:
    assert Method(layout=layout.epsilon(3)).density_at(7) is None


def test_a_method_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        sc.Static(0.5).density = 0.1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("every", "offset", "end", "due"),
    [
        (3, 0, 10, [3, 6, 9]),
        (3, 0, 9, [3, 6, 9]),
        (3, 1, 10, [1, 4, 7, 10]),
        (3, 5, 12, [5, 8, 11]),
        (5, 0, 4, []),
        (1, 0, 3, [1, 2, 3]),
        (4, 0, None, [4, 8, 12]),
        (None, 0, 10, []),
    ],
)
def test_steps_with_an_update(every: int | None, offset: int, end: int | None, due: list[int]) -> None:
    method = Method(density=0.5, every=every, offset=offset, end=end)
    assert [step for step in range(1, 15) if method.due(step)] == due
    assert [step for step in range(1, 15) if method.last(step)] == (due[-1:] if end is not None else [])


def test_the_last_update_has_the_values_of_the_end() -> None:
    method = sc.GraNet(0.1, end=11, every=3, initial=0.9, rate=0.4)
    assert method.due(9)
    assert (method.density_at(9), method.rate_at(9)) == (0.1, 0.0)
    before = 1 - 6 / 11
    assert method.density_at(6) == pytest.approx(0.1 + 0.8 * before**3)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (sc.Static(0.2), {"density": "0.2", "layout": "ERK(1)", "drop": "none", "grow": "none", "every": "None"}),
        (sc.SET(0.2, 9, 3), {"layout": "ER", "drop": "signed", "grow": "random", "grown_value": "normal(0.1)"}),
        (sc.SET(None, 9, 3), {"density": "None", "layout": "epsilon(20)"}),
        (sc.RigL(0.2, 9), {"drop": "magnitude", "grow": "gradient", "every": "100", "rate": "Cosine(start=0.3, stop=0.0)"}),
        (sc.ITOP(0.2, 9, 3), {"layout": "ERK(1)", "drop": "signed", "grow": "unfired", "grown_value": "0.0"}),
        (sc.SNFS(0.2, 9, 3), {"grow": "momentum", "share": "momentum", "scope": "layer"}),
        (sc.MEST(0.2, 9, 3, lam=0.5), {"density": "0.2", "drop": "mest(0.5)", "grow": "random"}),
        (sc.MEST(0.2, 9, 3, soft=0.1), {"density": "SoftBound(value=0.2, extra=0.1)"}),
        (sc.GMP(0.2, 9, 3), {"density": "Cubic(start=1.0, stop=0.2, begin=0)", "grow": "none", "scope": "global"}),
        (sc.GraNet(0.2, 9, 3), {"density": "Cubic(start=0.5, stop=0.2, begin=0)", "grow": "gradient", "scope": "shrink"}),
    ],
    ids=str,
)
def test_presets_in_words(method: Method, expected: dict[str, str]) -> None:
    assert {key: method.describe()[key] for key in expected} == expected


def test_any_field_of_a_preset_can_be_given() -> None:
    method = sc.RigL(0.2, 9, structure=Structure(group="row"), on_update="skip", offset=2)
    assert (method.structure.grouping.name, method.on_update, method.offset) == ("row", "skip", 2)


@pytest.mark.parametrize("preset", [sc.SET, sc.RigL, sc.ITOP, sc.SNFS, sc.MEST])
def test_every_preset_leaves_the_density_to_a_layout_that_decides_it(preset: Callable[..., Method]) -> None:
    method = preset(None, 9, 3, layout=layout.fixed({"*": 0.3}))
    assert (method.density, method.layout.name) == (None, "fixed({'*': 0.3})")
    with pytest.raises(ValueError, match="density is None"):
        preset(None, 9, 3, layout=layout.erk())


def test_where_grown_links_begin() -> None:
    context = Context("w", torch.zeros(40, 50, dtype=torch.bool), update=3, seed=1, role="grow", options={"lr": 0.5})
    index = torch.arange(0, 2000)
    weight, gradient = torch.zeros(2000), torch.randn(2000, generator=torch.Generator().manual_seed(0))
    normals = normal(0.1)(index, weight, None, context)
    assert normals.std() == pytest.approx(0.1, rel=0.1)
    assert abs(float(normals.mean())) < 0.01
    assert torch.equal(normal(0.1)(index[7:9], weight[7:9], None, context), normals[7:9])
    uniforms = uniform_within(0.2)(index, weight, None, context)
    assert -0.2 <= uniforms.min() < -0.19
    assert 0.19 < uniforms.max() < 0.2
    assert torch.equal(gradient_step(2.0)(index, weight, gradient, context), -gradient)
    with pytest.raises(RuntimeError, match="w: gradient_step needs the dense gradient"):
        gradient_step()(index, weight, None, context)
