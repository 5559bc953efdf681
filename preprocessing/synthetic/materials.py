"""What the simulator's surfaces are made of, as a LiDAR sees it."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Material(IntEnum):
    """Rows of the tables below."""

    GROUND = 0
    BUILDING = 1
    POLE = 2
    FOLIAGE = 3
    PAINT = 4
    GLASS = 5
    RUBBER = 6
    CLOTH = 7
    SKIN = 8
    METAL = 9
    REFLECTOR = 10


#                        ground building pole foliage paint glass rubber cloth skin metal reflector
REFLECTANCE = np.array([0.18, 0.40, 0.45, 0.35, 0.50, 0.10, 0.07, 0.35, 0.45, 0.55, 2.50], np.float32)
"""Intensity at normal incidence; paint and cloth also vary from actor to actor."""

TRANSMISSION = np.array([0.0, 0.0, 0.0, 0.45, 0.0, 0.60, 0.0, 0.0, 0.0, 0.0, 0.0], np.float32)
"""How often a beam that meets the surface also brings an echo from behind it."""

ELONGATION = np.array([0.0, 0.0, 0.0, 0.25, 0.0, 0.10, 0.0, 0.04, 0.02, 0.0, 0.0], np.float32)
"""Typical stretching of the echo at normal incidence."""

VARIES = np.array([False, True, False, False, True, False, False, True, False, False, False])
"""Materials whose reflectance is a matter of colour."""
