"""The LiDAR points in an agent's box as SVG: seen from above and from its right side."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from evaluation.report.markup import Html, tag
from limtr.scene import Scene

UNITS_PER_M = 100
MOST_POINTS = 250
MARGIN_M = 0.3


def crop_of(scene: Scene, row: int) -> tuple[npt.NDArray[np.float32], int, int] | None:
    """The crop of the latest history step that has points.

    Points (n, 3) in the box frame; how many were found in the box, of which n were kept; how many steps before now that is.

    None without LiDAR, if the track is no track to predict, or if no step has points.
    """
    position = np.flatnonzero(scene.tracks_to_predict == row)
    if scene.lidar is None or len(position) == 0:
        return None
    for frame in range(scene.current_step, -1, -1):
        points, _ = scene.lidar.frame(int(position[0]), frame)
        if len(points):
            found = int(scene.lidar.count_in_box[position[0], frame])
            return points, max(found, len(points)), scene.current_step - frame
    return None


def lidar_svg(scene: Scene, row: int) -> Html | None:
    """Both views with a caption; None where there is nothing to see (see `crop_of`)."""
    crop = crop_of(scene, row)
    if crop is None:
        return None
    points, found, age = crop
    size = scene.track_states[row, scene.current_step - age, 3:6].astype(np.float64)
    shown = points[np.unique(np.linspace(0, len(points) - 1, min(len(points), MOST_POINTS)).round().astype(np.int64))]
    when = "now" if age == 0 else f"{age / 10:.1f} s ago"
    caption = f"{found} LiDAR points {when}{f', {len(points)} of them kept' if found > len(points) else ''}"
    views = [_view(shown[:, [0, 1]], size[[0, 1]]), _view(shown[:, [0, 2]], size[[0, 2]])]
    return tag("div", *views, tag("p", caption), class_="crop")


def _view(points: npt.NDArray[np.float32], size: npt.NDArray[np.float64]) -> Html:
    """Points (n, 2): forward to the right, the second axis upwards."""
    half = 0.5 * size
    extent = np.maximum(np.abs(points).max(axis=0, initial=0.0), half) + MARGIN_M
    wide, high = (np.round(extent * UNITS_PER_M)).astype(int).tolist()
    at = np.round(points * (UNITS_PER_M, -UNITS_PER_M)).astype(int)
    dots = "".join(f"M{x} {y}h0" for x, y in at.tolist())
    length, width = np.round(half * UNITS_PER_M).astype(int).tolist()
    outline = f"M{-length} {-width}h{2 * length}v{2 * width}h{-2 * length}zM{length // 2} 0h{length - length // 2}"
    return tag(
        "svg",
        tag("path", d=outline, class_="outline"),
        tag("path", d=dots, class_="points"),
        viewBox=f"{-wide} {-high} {2 * wide} {2 * high}",
        aria_hidden="true",
    )
