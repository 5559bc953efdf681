"""Options of sparse training: what they resolve to, and what cannot be."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, get_args

import pytest

import sparse_core
from training.config import PRESETS, TrainConfig
from training.sparsity import DEFAULTS, MethodName, Sparsity, SparsityOptions

MOVING = ("snfs", "gmp", "dsr", "granet")


def sparsity(**given: Any) -> Sparsity:
    return Sparsity(**{"method": "rigl", **DEFAULTS, **given})


def config(**options: Any) -> TrainConfig:
    return TrainConfig(data=Path("data"), out=Path("run"), **options)


@pytest.mark.parametrize("name", get_args(MethodName))
def test_every_method_has_the_density_and_the_last_update_that_are_asked_for(name: MethodName) -> None:
    method = sparsity(method=name, density=0.2, every=10).as_method(400)
    assert method.density_at(300) == pytest.approx(0.2)
    if name != "static":
        assert method.due(300)
        assert not method.due(310)


def test_every_method_of_the_engine_can_be_named() -> None:
    presets = {name.lower() for name in sparse_core.__all__ if callable(getattr(sparse_core, name)) and name[0].isupper()}
    others = {"cost", "method", "offmask", "proposal", "report", "sparseengine", "structure"}
    assert presets - others == {name.replace("-", "") for name in get_args(MethodName)}


def test_without_options_a_training_is_as_dense_as_its_preset() -> None:
    assert config(preset="tiny").recipe(on_cuda=False).sparsity is None
    encoder, everything = (config(preset=name).recipe(on_cuda=False).sparsity for name in ("limtr-sparse", "limtr-sparse-all"))
    assert encoder is not None
    assert everything is not None
    assert (encoder.include, everything.include) == (("encoder.*",), ("*",))
    for preset in (encoder, everything):
        assert (preset.method, preset.density, preset.every) == ("rigl", 0.3, 100)  # as the document says
    dense = config(preset="limtr-sparse", sparsity=SparsityOptions(method="dense")).recipe(on_cuda=False)
    assert dense.sparsity is None


def test_options_replace_single_values_of_the_preset() -> None:
    found = config(preset="limtr-sparse", sparsity=SparsityOptions(density=0.1)).recipe(on_cuda=False).sparsity
    preset = PRESETS["limtr-sparse"]["sparsity"]
    assert found == Sparsity(**{**vars(preset), "density": 0.1})
    tiny = config(preset="tiny", sparsity=SparsityOptions(method="set", include=("decoder.*",))).recipe(on_cuda=False).sparsity
    assert tiny == sparsity(method="set", include=("decoder.*",))


def test_options_of_a_dense_training_are_not_ignored_in_silence() -> None:
    with pytest.raises(ValueError, match=r"--sparsity.density: the training is dense; name a method"):
        config(preset="tiny", sparsity=SparsityOptions(density=0.1)).recipe(on_cuda=False)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"density": 0.0}, "density must be above 0"),
        ({"include": ()}, "include names no weights"),
        ({"density": 1.5}, "density must be above 0"),
        ({"every": 0}, "every must be at least 1"),
        ({"until": 1.2}, "until must be above 0"),
        ({"rate": 1.0}, "rate must be at least 0 and below 1"),
        ({"method": "gmp", "rate": 0.3}, "gmp exchanges none"),
        ({"parts": ("decoder.*",)}, "no PATTERN=DENSITY"),
        ({"parts": ("decoder.*=2",)}, "no PATTERN=DENSITY"),
        ({"parts": ("decoder.*=0",)}, "no PATTERN=DENSITY"),
        ({"parts": ("a=0.5", "a=0.2")}, "comes twice"),
        ({"group": 0}, "group must be at least 1"),
        ({"group": 4, "density": 0.3}, "a density of 0.3 is no whole number of every 4 inputs"),
        ({"group": 4, "density": 0.5, "parts": ("a=0.7",)}, "a density of 0.7 is no whole number"),
        *(({"group": 4, "density": 0.5, "method": name}, f"{name} moves links between layers") for name in MOVING),
        ({"group": 4, "density": 0.5, "method": "srigl"}, "srigl moves links between rows: .* choose one of static"),
        ({"method": "granet", "density": 0.6}, "granet begins with 0.5 of the links"),
        ({"method": "gmp", "scale_weights": True}, "scale-weights is for few links"),
        ({"backward": 0.5}, "backward is of top-kast, and the method is rigl"),
        ({"method": "top-kast", "density": 0.3, "backward": 0.2}, "backward must be from the density 0.3 to 1"),
    ],
)
def test_values_that_cannot_be_are_told(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sparsity(**given)


def test_groups_and_what_trains_off_the_mask_reach_the_method() -> None:
    kast = sparsity(method="top-kast", density=0.25, backward=0.6).as_method(400)
    assert kast.off_mask == sparse_core.OffMask(0.6, 1e-4)
    assert kast.structure.grouping.name == "tensor"
    for method in ("sr-ste", "static", "rigl"):
        pairs = sparsity(method=method, density=0.5, group=4).as_method(400)
        assert pairs.structure.grouping.name == "4 neighbours"
    assert sparsity(method="sr-ste").as_method(400).structure.grouping.name == "tensor"


def test_values_at_the_bounds_are_allowed() -> None:
    assert sparsity(method="top-kast", density=0.3, backward=0.3).as_method(400).off_mask is not None
    assert sparsity(rate=0.0).as_method(400).rate_at(0) == 0.0
    assert sparsity(until=1.0, every=10).as_method(400).due(400)
    assert sparsity(density=1.0, parts=("a=b*=1",)).part_densities() == {"a=b*": 1.0}


def test_groups_go_with_every_other_method() -> None:
    for name in ("static", "set", "rigl", "itop", "mest", "cht", "chts", "top-kast", "sr-ste"):
        assert sparsity(method=name, density=0.5, group=4).as_method(400).structure.grouping.name == "4 neighbours"
    assert sparsity(method="granet", density=0.5).as_method(400).density_at(300) == 0.5


def test_updates_that_a_static_training_never_makes_are_remarked_unless_the_preset_has_them() -> None:
    with pytest.warns(UserWarning, match=r"--sparsity.every, --sparsity.until: ignored, since the links of static never"):
        SparsityOptions(method="static", every=5, until=0.5).resolved(None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SparsityOptions(method="static", density=0.5).resolved(PRESETS["limtr-sparse"]["sparsity"])
        SparsityOptions(method="set", every=5, until=0.5).resolved(None)


def test_links_are_drawn_at_random_unless_the_weights_choose_them() -> None:
    assert sparsity().draws_links
    assert not sparsity(start="magnitude").draws_links
    assert not sparsity(density=1.0).draws_links
    assert not any(sparsity(method=name).draws_links for name in ("gmp", "top-kast", "sr-ste"))


def test_a_training_too_short_for_an_update_is_told() -> None:
    with pytest.raises(ValueError, match="first update is due at step 20, but links are fixed from step 7 of 10"):
        sparsity(every=20).as_method(10)
    with pytest.raises(ValueError, match="first update is due at step 20, but links are fixed from step 19 of 19"):
        sparsity(method="set", every=20, until=1.0).as_method(19)
    assert sparsity(method="set", every=20, until=1.0).as_method(20).due(20)


def test_the_share_that_is_exchanged_reaches_the_method() -> None:
    for name in get_args(MethodName):
        if name not in ("static", "gmp"):
            method = sparsity(method=name, rate=0.123, density=0.4).as_method(400)
            assert method.rate_at(0) == pytest.approx(0.123), name
            assert sparsity(method=name, density=0.4).as_method(400).rate_at(0) >= 0.1 != method.rate_at(0), name


@pytest.mark.parametrize("name", ["rigl", "snfs", "srigl"])
def test_a_training_in_which_no_link_would_change_is_told(name: MethodName) -> None:
    with pytest.raises(ValueError, match="falls to 0 at its last update, and of 40 steps only step 20 has one"):
        sparsity(method=name, every=20).as_method(40)
    assert sparsity(method=name, every=15).as_method(40).rate_at(15) > 0.0
    assert sparsity(method="set", every=20).as_method(40).rate_at(20) > 0.0
