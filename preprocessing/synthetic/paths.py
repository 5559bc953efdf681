"""Paths: the planned curves of many actors in one flat table, so that a step looks all of them up at once."""

from __future__ import annotations

import numpy as np

from preprocessing.synthetic.road_geometry import resample, smooth
from preprocessing.synthetic.world import Float, Int


class Paths:
    """Planned curves of A actors, evenly spaced, continued straight beyond both ends.

    Args:
        lines: A polylines (n, 2).
        spacing_m: step of the table.
        rounding_m: (A,) window over which corners are rounded.
    """

    def __init__(self, lines: list[Float], spacing_m: float, rounding_m: list[float]) -> None:
        self.spacing_m = spacing_m
        even: list[Float] = [
            np.asarray(smooth(resample(line, spacing_m, keep_end=False), spacing_m, window))
            for line, window in zip(lines, rounding_m, strict=True)
        ]
        count = np.array([len(line) for line in even], dtype=np.int64)
        self.start: Int = np.cumsum(count) - count
        self.last: Int = count - 1
        self.length_m: Float = np.asarray(self.last * spacing_m, dtype=np.float64)
        self.points_m: Float = np.concatenate(even) if even else np.zeros((0, 2))
        self.heading_rad: Float = np.zeros(len(self.points_m))
        self.curvature: Float = np.zeros(len(self.points_m))
        for start, line in zip(self.start, even, strict=True):
            rows = slice(start, start + len(line))
            tangent = np.gradient(line, axis=0)
            heading = np.unwrap(np.arctan2(tangent[:, 1], tangent[:, 0]))
            self.heading_rad[rows] = heading
            self.curvature[rows] = np.gradient(heading, spacing_m)

    def __len__(self) -> int:
        return len(self.start)

    def position(self, s_m: Float, rows: Int | None = None) -> Float:
        """Points (A, ..., 2) at arc lengths `s_m` (A, ...) of the paths `rows` (default: all, in order)."""
        return self.pose(s_m, rows)[0]

    def pose(self, s_m: Float, rows: Int | None = None) -> tuple[Float, Float]:
        """Points (A, ..., 2) and unwrapped directions (A, ...) in rad, as `position` and `heading` give them."""
        index, share, beyond = self._locate(s_m, rows)
        before, after = self.heading_rad[index], self.heading_rad[index + 1]
        points = self.points_m[index] * (1 - share[..., None]) + self.points_m[index + 1] * share[..., None]
        heading = before * (1 - share) + after * share
        if np.any(beyond):
            points = points + beyond[..., None] * np.stack([np.cos(heading), np.sin(heading)], axis=-1)
        return np.asarray(points), np.asarray(heading)

    def heading(self, s_m: Float, rows: Int | None = None) -> Float:
        """Unwrapped direction (A, ...) in rad."""
        index, share, _ = self._locate(s_m, rows)
        return np.asarray(self.heading_rad[index] * (1 - share) + self.heading_rad[index + 1] * share)

    def lookup(self, table: Float, s_m: Float, rows: Int | None = None) -> Float:
        """Any per-point table (such as `curvature`), interpolated at `s_m`."""
        index, share, _ = self._locate(s_m, rows)
        return np.asarray(table[index] * (1 - share) + table[index + 1] * share)

    def speed_limit(self, lateral_mps2: Float, braking_mps2: Float) -> Float:
        """Per-point speed (m/s) that keeps the sideways acceleration and can be braked to in time.

        Args:
            lateral_mps2: (A,) comfortable sideways acceleration.
            braking_mps2: (A,) comfortable braking.
        """
        limit = np.zeros(len(self.points_m))
        for row, start in enumerate(self.start):
            rows = slice(start, start + self.last[row] + 1)
            along = np.arange(self.last[row] + 1) * self.spacing_m
            squared = lateral_mps2[row] / np.maximum(np.abs(self.curvature[rows]), 1e-3) + 2 * braking_mps2[row] * along
            reachable = np.minimum.accumulate(squared[::-1])[::-1] - 2 * braking_mps2[row] * along
            limit[rows] = np.sqrt(reachable)
        return limit

    def _locate(self, s_m: Float, rows: Int | None) -> tuple[Int, Float, Float]:
        shape = (-1,) + (1,) * (np.ndim(s_m) - 1)
        start = (self.start if rows is None else self.start[rows]).reshape(shape)
        last = (self.last if rows is None else self.last[rows]).reshape(shape)
        place = np.asarray(s_m) / self.spacing_m
        whole = np.clip(np.floor(place).astype(np.int64), 0, last - 1)
        share = np.clip(place - whole, 0.0, 1.0)
        beyond = (place - np.clip(place, 0, last)) * self.spacing_m
        return start + whole, share, beyond
