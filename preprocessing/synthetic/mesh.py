"""Triangle meshes and the few primitives that the simulator's bodies are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from preprocessing.synthetic.materials import Material

Float = npt.NDArray[np.float32]
Index = npt.NDArray[np.uint32]
Byte = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """Triangles that may move: T copies of the same faces (T = 1 for what stands still)."""

    vertices_m: Float
    """(T, V, 3)"""
    faces: Index
    """(F, 3) rows of `vertices_m`"""
    material: Byte
    """(F,) `Material`"""

    def moved(self, rotation: npt.ArrayLike | None = None, offset_m: npt.ArrayLike = (0.0, 0.0, 0.0)) -> Mesh:
        """Rotate by (3, 3) or (T, 3, 3), then shift by (3,) or (T, 3)."""
        vertices = self.vertices_m
        if rotation is not None:
            vertices = vertices @ np.swapaxes(np.asarray(rotation, np.float32), -1, -2)
        shift = np.asarray(offset_m, np.float32)
        return Mesh(vertices_m=vertices + shift.reshape(-1, 1, 3), faces=self.faces, material=self.material)

    def scaled(self, factors: Sequence[float]) -> Mesh:
        """Stretch along x, y, z."""
        vertices = self.vertices_m * np.asarray(factors, np.float32)
        return Mesh(vertices_m=vertices, faces=self.faces, material=self.material)


def join(parts: Sequence[Mesh]) -> Mesh:
    """All parts as one mesh; parts with T = 1 stand still while the others move."""
    num_steps = max(part.vertices_m.shape[0] for part in parts)
    start = np.cumsum([0] + [part.vertices_m.shape[1] for part in parts[:-1]])
    vertices = [np.broadcast_to(part.vertices_m, (num_steps, *part.vertices_m.shape[1:])) for part in parts]
    faces = [part.faces + np.uint32(first) for part, first in zip(parts, start, strict=True)]
    return Mesh(
        vertices_m=np.concatenate(vertices, axis=1),
        faces=np.concatenate(faces),
        material=np.concatenate([part.material for part in parts]),
    )


def rotation_z(angle_rad: npt.ArrayLike) -> Float:
    """(..., 3, 3) turns about z."""
    angle = np.asarray(angle_rad, np.float64)
    cos, sin, zero, one = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    rows = np.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], axis=-1)
    return rows.reshape(*angle.shape, 3, 3).astype(np.float32)


def rotation_y(angle_rad: npt.ArrayLike) -> Float:
    """(..., 3, 3) turns about y: a positive angle tips what points up towards +x."""
    angle = np.asarray(angle_rad, np.float64)
    cos, sin, zero, one = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    rows = np.stack([cos, zero, sin, zero, one, zero, -sin, zero, cos], axis=-1)
    return rows.reshape(*angle.shape, 3, 3).astype(np.float32)


def _fixed(vertices: npt.ArrayLike, faces: npt.ArrayLike, material: int) -> Mesh:
    triangles = np.asarray(faces, np.uint32)
    return Mesh(
        vertices_m=np.asarray(vertices, np.float32)[None],
        faces=triangles,
        material=np.full(len(triangles), material, np.uint8),
    )


def box(size_m: Sequence[float], material: Material) -> Mesh:
    """A box about the origin."""
    corners = np.stack(np.meshgrid((-0.5, 0.5), (-0.5, 0.5), (-0.5, 0.5), indexing="ij"), axis=-1).reshape(8, 3)
    return _fixed(corners * np.asarray(size_m), BOX_FACES, material)


BOX_FACES = np.array(
    [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4],
     [1, 5, 7], [1, 7, 3]], dtype=np.uint32)  # fmt: skip
"""The twelve triangles over corners ordered (x, y, z) with z fastest."""


def prism(
    profile_xz_m: Sequence[tuple[float, float]],
    half_width_m: float | Sequence[float],
    *,
    edges: Material | Sequence[Material],
    sides: Material,
) -> Mesh:
    """A convex outline in the x-z plane, drawn out along y.

    Args:
        profile_xz_m: n corners in order.
        half_width_m: half extent along y, one or per corner (a narrower roof).
        edges: material of the n faces between one corner and the next, one or per corner.
        sides: material of the two flat sides.
    """
    profile = np.asarray(profile_xz_m, np.float64)
    n = len(profile)
    half = np.broadcast_to(np.asarray(half_width_m, np.float64), (n,))
    left = np.stack([profile[:, 0], half, profile[:, 1]], axis=-1)
    right = left * np.array([1.0, -1.0, 1.0])
    following = (np.arange(n) + 1) % n
    around = np.arange(n)
    band = np.concatenate([
        np.stack([around, following, following + n], axis=-1),
        np.stack([around, following + n, around + n], axis=-1),
    ])  # fmt: skip
    fan = np.stack([np.zeros(n - 2, np.int64), np.arange(1, n - 1), np.arange(2, n)], axis=-1)
    edge_material = np.broadcast_to(np.asarray(edges, np.uint8), (n,))
    material = np.concatenate([edge_material, edge_material, np.full(2 * (n - 2), int(sides), np.uint8)])
    mesh = _fixed(np.concatenate([left, right]), np.concatenate([band, fan, fan + n]), sides)
    return Mesh(vertices_m=mesh.vertices_m, faces=mesh.faces, material=material)


@cache
def wheel(num_sides: int = 12) -> Mesh:
    """A closed cylinder of radius 1 and length 1 about the y axis, of rubber."""
    angle = 2 * np.pi * np.arange(num_sides) / num_sides
    outline = [(float(x), float(z)) for x, z in zip(np.cos(angle), np.sin(angle), strict=True)]
    return prism(outline, 0.5, edges=Material.RUBBER, sides=Material.RUBBER)


@cache
def ellipsoid(material: Material, num_around: int = 8, num_rings: int = 5) -> Mesh:
    """A sphere of radius 1 about the origin; `scaled` makes it an ellipsoid."""
    polar = np.pi * np.arange(1, num_rings + 1) / (num_rings + 1)
    around = 2 * np.pi * np.arange(num_around) / num_around
    sin, cos = np.sin(polar)[:, None], np.cos(polar)[:, None]
    ring = np.stack([sin * np.cos(around), sin * np.sin(around), np.broadcast_to(cos, (num_rings, num_around))], axis=-1)
    vertices = np.concatenate([ring.reshape(-1, 3), [[0, 0, 1], [0, 0, -1]]])
    top, bottom = num_rings * num_around, num_rings * num_around + 1
    here = np.arange(num_around)
    ahead = (here + 1) % num_around
    faces = [np.stack([np.full(num_around, top), here, ahead], axis=-1)]
    for row in range(num_rings - 1):
        above, below = row * num_around, (row + 1) * num_around
        faces.append(np.stack([above + here, below + here, below + ahead], axis=-1))
        faces.append(np.stack([above + here, below + ahead, above + ahead], axis=-1))
    last = (num_rings - 1) * num_around
    faces.append(np.stack([np.full(num_around, bottom), last + ahead, last + here], axis=-1))
    return _fixed(vertices, np.concatenate(faces), material)


@cache
def _limb(material: Material) -> Mesh:
    """A six-sided closed cylinder of radius 1 from (0, 0, 0) to (0, 0, 1)."""
    return prism([(np.cos(a), np.sin(a)) for a in np.arange(6) * np.pi / 3], 0.5, edges=material, sides=material).moved(
        np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]), (0.0, 0.0, 0.5)
    )


def limb(start_m: npt.ArrayLike, end_m: npt.ArrayLike, radius_m: float, material: Material) -> Mesh:
    """A thin cylinder between two points, each (3,) or (T, 3)."""
    start, end = np.broadcast_arrays(np.atleast_2d(np.asarray(start_m, float)), np.atleast_2d(np.asarray(end_m, float)))
    axis = end - start
    length = np.maximum(np.linalg.norm(axis, axis=-1, keepdims=True), 1e-6)
    up = axis / length
    # Any direction that is not the limb's own serves as a reference; limbs of bodies are never along y all the way.
    reference = np.where(np.abs(up[:, 1:2]) < 0.9, [[0.0, 1.0, 0.0]], [[1.0, 0.0, 0.0]])
    side = np.cross(reference, up)
    side /= np.linalg.norm(side, axis=-1, keepdims=True)
    other = np.cross(up, side)
    frame = np.stack([side * radius_m, other * radius_m, axis], axis=-1)
    return _limb(material).moved(frame, start)
