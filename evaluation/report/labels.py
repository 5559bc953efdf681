"""Where labels go, so that they do not cover each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_STEPS = (0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 4.0, -4.0)


def label_spots(
    points: npt.NDArray[np.float64], width: float, height: float, right: float = np.inf
) -> list[tuple[float, float]]:
    """Left end of the baseline of a label at each point: beside it, above or below, where no earlier label is.

    Args:
        points: (n, 2) right and down, the most important first.
        width: of a label.
        height: of a label.
        right: where a label must end.
    """
    placed: list[tuple[float, float]] = []
    for x, y in points.tolist():
        gap = 0.4 * height
        tries = [(min(x + side, right - width), y + (step + 0.35) * height) for step in _STEPS for side in (gap, -gap - width)]
        placed.append(next((spot for spot in tries if _free(spot, placed, width, height)), tries[0]))
    return placed


def _free(spot: tuple[float, float], placed: Sequence[tuple[float, float]], width: float, height: float) -> bool:
    return all(abs(spot[0] - x) >= width or abs(spot[1] - y) >= height for x, y in placed)
