"""What may befall the map of a scene: parts of it are missing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from limtr.scene import Scene
from preprocessing.polylines import cut_polylines


def missing_map(scene: Scene, share: float, rng: np.random.Generator) -> Scene:
    """Every map feature is lost with probability `share`, and the signals of lost lanes with it; the rest is cut anew."""
    kept = rng.random(len(scene.feature_length)) >= share
    points = scene.map_points_m[np.repeat(kept, scene.feature_length)]
    signals = ~np.isin(scene.signal_lane, scene.feature_id[~kept])
    return replace(
        scene,
        map_points_m=points,
        feature_length=scene.feature_length[kept],
        feature_type=scene.feature_type[kept],
        feature_id=scene.feature_id[kept],
        polyline_length=cut_polylines(points.astype(np.float64) + scene.origin_m),
        signal_step=scene.signal_step[signals],
        signal_lane=scene.signal_lane[signals],
        signal_state=scene.signal_state[signals],
        signal_stop_m=scene.signal_stop_m[signals],
    )
