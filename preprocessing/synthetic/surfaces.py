"""Everything that a beam can meet at one step, with who owns each triangle and what it is made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from preprocessing.open3d_loader import load_open3d
from preprocessing.synthetic.bodies import body_in_world
from preprocessing.synthetic.materials import REFLECTANCE, VARIES, Material
from preprocessing.synthetic.mesh import Mesh, box, ellipsoid, join, prism, rotation_z
from preprocessing.synthetic.world import World

Float = npt.NDArray[np.float32]
Int = npt.NDArray[np.int32]

_GROUND_M = 400.0
_TREE_HEIGHT_M = 4.0  # every second pole of this height carries a crown
_CROWN_M = (1.3, 1.3, 1.0)


@dataclass(frozen=True, kw_only=True)
class Hits:
    """The first surface of every ray."""

    distance_m: Float
    """(N,) infinite where a ray meets nothing."""
    triangle: npt.NDArray[np.int64]
    """(N,) row of the surfaces' triangles, 0 where it meets nothing."""
    cos_incidence: Float
    """(N,) 1 at a right angle, 0 when grazing."""


@dataclass(frozen=True, kw_only=True)
class Surfaces:
    """Triangles of one step."""

    mesh: Mesh
    owner: Int
    """(F,) actor row; from the number of actors on: ground, then each building and pole."""
    reflectance: Float
    """(F,)"""

    def caster(self) -> Caster:
        """Rays can be cast at these triangles."""
        return Caster(self.mesh.vertices_m[0], self.mesh.faces)


class Caster:
    """Open3D's ray casting on one thread: scenes are spread over processes, not rays over threads."""

    def __init__(self, vertices_m: Float, faces: npt.NDArray[np.uint32]) -> None:
        open3d = load_open3d()
        self._tensor = open3d.core.Tensor
        self._scene = open3d.t.geometry.RaycastingScene(nthreads=1)
        self._scene.add_triangles(
            self._tensor(np.ascontiguousarray(vertices_m, np.float32)), self._tensor(np.ascontiguousarray(faces, np.uint32))
        )
        self._invalid = int(open3d.t.geometry.RaycastingScene.INVALID_ID)

    def cast(self, rays: Float) -> Hits:
        """Cast (N, 6) rays: origin and unit direction."""
        result = self._scene.cast_rays(self._tensor(np.ascontiguousarray(rays, np.float32)), nthreads=1)
        triangle = result["primitive_ids"].numpy().astype(np.int64)
        normals = result["primitive_normals"].numpy()
        triangle[triangle == self._invalid] = 0
        cos = np.abs(np.einsum("ij,ij->i", rays[:, 3:], normals))
        return Hits(distance_m=result["t_hit"].numpy(), triangle=triangle, cos_incidence=np.minimum(cos, 1.0))


def static_meshes(world: World) -> list[Mesh]:
    """The ground, then each building and each pole (some with a tree's crown)."""
    ground = Mesh(
        vertices_m=np.array([[[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]], np.float32) * np.float32(_GROUND_M),
        faces=np.array([[0, 1, 2], [0, 2, 3]], np.uint32),
        material=np.full(2, Material.GROUND, np.uint8),
    )
    meshes = [ground]
    for x, y, length, width, height, yaw in world.buildings:
        walls = box((length, width, height), Material.BUILDING)
        meshes.append(walls.moved(rotation_z(yaw)).moved(None, (x, y, height / 2)))
    angle = np.arange(8) * np.pi / 4
    for number, (x, y, radius, height) in enumerate(world.poles):
        outline = [(float(a), float(b)) for a, b in zip(radius * np.cos(angle), radius * np.sin(angle), strict=True)]
        upright = np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])
        pole = prism(outline, height / 2, edges=Material.POLE, sides=Material.POLE).moved(upright, (x, y, height / 2))
        if height >= _TREE_HEIGHT_M and number % 2 == 0:
            pole = join([pole, ellipsoid(Material.FOLIAGE).scaled(_CROWN_M).moved(None, (x, y, height))])
        meshes.append(pole)
    return meshes


def surfaces_by_step(world: World, steps: range, *, reach_m: float, rng: np.random.Generator) -> list[Surfaces]:
    """Surfaces at each of `steps`: all that stands still, and the bodies of actors within `reach_m` of the ego.

    The ego's own body is left out: real scans are cleaned of it. Paint, cloth and walls get their colours from `rng`.
    """
    num_actors = len(world.kind)
    static = static_meshes(world)
    static_owner = np.repeat(np.arange(len(static)) + num_actors, [len(mesh.faces) for mesh in static])
    colour = rng.uniform(0.25, 1.7, num_actors + len(static)).astype(np.float32)
    fixed = join(static)
    rows = list(steps)
    moving = np.linalg.norm(world.position_m[:, rows, :2] - world.position_m[world.ego, rows, :2], axis=-1)
    near = world.present[:, rows] & (moving < reach_m)
    near[world.ego] = False
    bodies = {int(actor): body_in_world(world, int(actor), rows) for actor in np.flatnonzero(near.any(axis=1))}
    result = []
    for column in range(len(rows)):
        actors = [int(actor) for actor in np.flatnonzero(near[:, column])]
        parts = [fixed, *(_frozen(bodies[actor], column) for actor in actors)]
        owner = np.concatenate([static_owner, *(np.full(len(bodies[actor].faces), actor) for actor in actors)])
        mesh = join(parts)
        tint = np.where(VARIES[mesh.material], colour[owner], np.float32(1.0))
        result.append(Surfaces(mesh=mesh, owner=owner.astype(np.int32), reflectance=REFLECTANCE[mesh.material] * tint))
    return result


def _frozen(mesh: Mesh, column: int) -> Mesh:
    row = column if mesh.vertices_m.shape[0] > 1 else 0
    return Mesh(vertices_m=mesh.vertices_m[row : row + 1], faces=mesh.faces, material=mesh.material)
