"""Traffic signals as people read them: what WOMD's lane states mean, their colours and shapes."""

from __future__ import annotations

from enum import Enum

import numpy as np
import numpy.typing as npt

from limtr.scene import Scene


class SignalMeaning(Enum):
    """What a signal tells, whatever its arrow."""

    UNKNOWN = "unknown"
    STOP = "stop"
    CAUTION = "caution"
    GO = "go"


_MEANING = (
    SignalMeaning.UNKNOWN,
    SignalMeaning.STOP, SignalMeaning.CAUTION, SignalMeaning.GO,
    SignalMeaning.STOP, SignalMeaning.CAUTION, SignalMeaning.GO,
    SignalMeaning.STOP, SignalMeaning.CAUTION,
)  # fmt: skip
"""By WOMD's TrafficSignalLaneState.State: unknown; three arrows; the same three without arrows; flashing stop and caution."""


def signal_meaning(state: int) -> SignalMeaning:
    """The meaning of a lane state; numbers that WOMD does not define are unknown."""
    return _MEANING[state] if 0 <= state < len(_MEANING) else SignalMeaning.UNKNOWN


def signals_at(scene: Scene, step: int) -> list[tuple[npt.NDArray[np.float32], SignalMeaning]]:
    """Stop point (3,) in the scene frame and meaning of every signal observed at `step`."""
    rows = np.flatnonzero(scene.signal_step == step)
    return [(scene.signal_stop_m[row], signal_meaning(int(scene.signal_state[row]))) for row in rows]
