"""Random numbers of a corruption: a function of seed, scenario and kind alone, and the same at every severity.

Because severities share their draws, what is lost at one severity is lost at all higher ones, and noise only grows: a
curve over severities then shows the severity, not another throw of the dice.
"""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, scenario_id: str, kind: str) -> np.random.Generator:
    """A generator for one kind of corruption of one scene."""
    digest = hashlib.sha256(f"{seed}/{kind}/{scenario_id}".encode()).digest()
    return np.random.default_rng(np.frombuffer(digest[:16], dtype=np.uint32).tolist())
