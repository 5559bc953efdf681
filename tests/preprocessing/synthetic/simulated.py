"""Simulated scenes that several tests look at, made once."""

from __future__ import annotations

from functools import cache

from preprocessing.synthetic.layouts import Layout
from preprocessing.synthetic.simulate import SimulationConfig, simulate
from preprocessing.synthetic.world import World


@cache
def world(index: int, seed: int = 0, cue_lead_s: float = 2.0, layout: Layout | None = None) -> World:
    """One small scene."""
    return simulate(seed, index, SimulationConfig(cue_lead_s=cue_lead_s, layout=layout))


NUM_WORLDS = 24


def worlds() -> list[World]:
    """The first scenes of seed 0."""
    return [world(index) for index in range(NUM_WORLDS)]
