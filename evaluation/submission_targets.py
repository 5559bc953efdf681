"""What a challenge submission has to predict: the scenarios of a split with their tracks to predict and interacting pairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from evaluation.joint import interactive_pair
from limtr.scene import STATE_FIELDS, Scene

Challenge = Literal["motion", "interaction"]
MAX_OBJECTS = 8
"""Most tracks to predict of a WOMD scenario."""

_SECONDS_TO_FIRST_POINT = 0.5
_SPARE_MPS = 10.0
_SPARE_M = 5.0


@dataclass(frozen=True, kw_only=True)
class ScenarioTargets:
    """What must be predicted of one scenario."""

    object_ids: tuple[int, ...]
    """Object ids of the tracks to predict, in the record's order."""
    pair: tuple[int, int] | None
    """Object ids of the two interacting agents, None if the record names no pair."""
    reach: Mapping[int, tuple[float, float, float]]
    """World x, y (m) of each target now, and how far (m) it can be after half a second at the very most."""

    def wanted(self, challenge: Challenge) -> tuple[int, ...]:
        """The objects that the challenge asks for."""
        return self.object_ids if challenge == "motion" else self.pair or ()


Targets = Mapping[str, ScenarioTargets]
"""By scenario id."""


def targets_of(scenes: Iterable[Scene]) -> dict[str, ScenarioTargets]:
    """The targets of scenes, by scenario id."""
    found = {}
    for scene in scenes:
        rows = scene.tracks_to_predict
        reach = {}
        for row in rows[scene.track_valid[rows, scene.current_step]].tolist():
            state = dict(zip(STATE_FIELDS, scene.track_states[row, scene.current_step].tolist(), strict=True))
            speed = float(state["vx"] ** 2 + state["vy"] ** 2) ** 0.5
            limit = _SECONDS_TO_FIRST_POINT * (speed + _SPARE_MPS) + _SPARE_M
            x, y = (state["x"] + float(scene.origin_m[0]), state["y"] + float(scene.origin_m[1]))
            reach[int(scene.track_id[row])] = (x, y, limit)
        found[scene.scenario_id] = ScenarioTargets(
            object_ids=tuple(scene.track_id[rows].tolist()), pair=interactive_pair(scene), reach=reach
        )
    return found
