"""From what a ray meets to what a LiDAR reports: detection, noise, intensity, elongation and second returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from preprocessing.synthetic.materials import ELONGATION, TRANSMISSION, Material
from preprocessing.synthetic.scan_geometry import SensorConfig
from preprocessing.synthetic.surfaces import Caster, Hits, Surfaces

Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

NUM_CHANNELS = 4  # range, intensity, elongation, in a no-label zone
NOISE_CUT = 4.0
_REFERENCE_RANGE_M = 25.0
_WEAKEST = 0.008  # signal at which an echo is found two times in three
_SILHOUETTE_GAP_M = 1.0
_SILHOUETTE_SHARE = 0.35
_SPLIT_M = 0.3  # two echoes closer than this are one
_SECOND_STRENGTH = 0.5
_MAX_LAYERS = 4


@dataclass(frozen=True, kw_only=True)
class Echoes:
    """Both returns of one laser's cast columns: (H, n, 4) images, zero where there is none."""

    first: Float
    second: Float


def echoes(
    rays: Float,
    shape: tuple[int, int],
    caster: Caster,
    surfaces: Surfaces,
    *,
    max_range_m: float,
    config: SensorConfig,
    rng: np.random.Generator,
) -> Echoes:
    """Cast `rays` (H * n, 6) and measure them.

    A second return comes from behind what lets light through, and from behind a body's silhouette where a beam is cut
    in two; the surface behind is found along the same ray.
    """
    hits = caster.cast(rays)
    first = np.zeros((rays.shape[0], NUM_CHANNELS), np.float32)
    second = np.zeros_like(first)
    within = np.flatnonzero(hits.distance_m <= max_range_m)
    seen = measure(hits, within, surfaces, config=config, rng=rng, strength=1.0)
    first[within] = seen
    split = _split_beams(hits, first, surfaces, shape, rng)
    behind = _behind(rays[split], _picked(hits, split), caster, surfaces)
    found = np.flatnonzero(behind.distance_m <= max_range_m)
    if found.size:
        second[split[found]] = measure(behind, found, surfaces, config=config, rng=rng, strength=_SECOND_STRENGTH)
    return Echoes(first=first.reshape(*shape, NUM_CHANNELS), second=second.reshape(*shape, NUM_CHANNELS))


def measure(
    hits: Hits,
    rows: npt.NDArray[np.int64],
    surfaces: Surfaces,
    *,
    config: SensorConfig,
    rng: np.random.Generator,
    strength: float,
) -> Float:
    """What the LiDAR reports (n, 4) for `rows` of `hits`; zero where the echo is lost.

    The signal falls with the square of the range and with the angle of incidence; a weak one is lost more often.
    """
    distance, triangle, cos = hits.distance_m[rows], hits.triangle[rows], hits.cos_incidence[rows]
    material, reflectance = surfaces.mesh.material[triangle], surfaces.reflectance[triangle]
    signal = strength * reflectance * cos * np.square(_REFERENCE_RANGE_M / np.maximum(distance, 1.0))
    kept = rng.random(len(rows), dtype=np.float32) < (1.0 - config.dropout) * -np.expm1(-signal / _WEAKEST)
    noise = np.clip(rng.standard_normal(len(rows), dtype=np.float32), -NOISE_CUT, NOISE_CUT) * config.range_noise_m
    result = np.empty((len(rows), NUM_CHANNELS), np.float32)
    # Never below a centimetre: a range of zero means that nothing came back.
    result[:, 0] = np.maximum(distance + noise, 0.01)
    speckle = 0.9 + 0.2 * rng.random(len(rows), dtype=np.float32)
    result[:, 1] = np.maximum(strength * reflectance * (0.3 + 0.7 * cos) * speckle, 0.01)
    result[:, 2] = ELONGATION[material] * (0.5 + speckle) + 0.2 * np.square(np.square(np.square(1.0 - cos)))
    # Nothing is labelled inside a building: its walls stand for the no-label zones of real scans.
    result[:, 3] = material == Material.BUILDING
    result[~kept] = 0.0
    return result


def _split_beams(
    hits: Hits, first: Float, surfaces: Surfaces, shape: tuple[int, int], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Rows whose beam goes on behind its first echo."""
    distance = np.minimum(hits.distance_m, 1e3).reshape(shape)
    farther = np.zeros(shape, np.bool_)
    gap = np.diff(distance, axis=1)
    farther[:, :-1] |= gap > _SILHOUETTE_GAP_M
    farther[:, 1:] |= gap < -_SILHOUETTE_GAP_M
    material = surfaces.mesh.material[hits.triangle]
    edge = farther.ravel() & (material != Material.GROUND)
    chance = np.maximum(TRANSMISSION[material], np.where(edge, np.float32(_SILHOUETTE_SHARE), np.float32(0.0)))
    candidates = np.flatnonzero((first[:, 0] > 0) & (chance > 0))
    return candidates[rng.random(len(candidates), dtype=np.float32) < chance[candidates]]


def _picked(hits: Hits, rows: npt.NDArray[np.int64]) -> Hits:
    return Hits(distance_m=hits.distance_m[rows], triangle=hits.triangle[rows], cos_incidence=hits.cos_incidence[rows])


def _behind(rays: Float, front: Hits, caster: Caster, surfaces: Surfaces) -> Hits:
    """The next surface of another owner along each ray, seen from the ray's own origin."""
    distance = np.full(len(rays), np.inf, np.float32)
    triangle, cos = front.triangle.copy(), front.cos_incidence.copy()
    open_rows = np.arange(len(rays))
    reached = front.distance_m.copy()
    for _ in range(_MAX_LAYERS):
        if not open_rows.size:
            break
        onward = rays[open_rows].copy()
        start = reached[open_rows] + np.float32(0.02)
        onward[:, :3] += onward[:, 3:] * start[:, None]
        hits = caster.cast(onward)
        total = hits.distance_m + start
        other = surfaces.owner[hits.triangle] != surfaces.owner[front.triangle[open_rows]]
        done = other & (total > front.distance_m[open_rows] + _SPLIT_M) & np.isfinite(total)
        rows = open_rows[done]
        distance[rows], triangle[rows], cos[rows] = total[done], hits.triangle[done], hits.cos_incidence[done]
        going = ~done & np.isfinite(total)
        reached[open_rows[going]] = total[going]
        open_rows = open_rows[going]
    return Hits(distance_m=distance, triangle=triangle, cos_incidence=cos)
