"""Where the five lasers sit on the vehicle and where their beams go, after Waymo's perception vehicle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]

TOP, FRONT, SIDE_LEFT, SIDE_RIGHT, REAR = 1, 2, 3, 4, 5  # LaserName
TOP_ROWS = 64
_TOP_LOWEST_RAD, _TOP_HIGHEST_RAD = np.deg2rad([-17.6, 2.4])
_SIDE_LOWEST_RAD, _SIDE_HIGHEST_RAD = np.deg2rad([-90.0, 30.0])
_SIDE_FIELD_RAD = np.deg2rad(90.0)  # to either side of where a side laser looks
_TOP_YAW_RAD = 2.58  # the TOP laser's own zero looks backwards and left
REAR_AXLE_SHARE = 0.3
"""The vehicle frame's origin lies this share of the ego's length behind its box centre, on the ground."""


@dataclass(frozen=True, kw_only=True)
class SensorConfig:
    """Resolution and imperfections of the simulated LiDARs."""

    top_columns: int = 1325
    """Columns of the TOP range image (Waymo: 2650)."""
    side_shape: tuple[int, int] = (60, 200)
    """Rows and columns of each side range image (Waymo: 200 x 600)."""
    top_range_m: float = 75.0
    """Longest range of the TOP laser."""
    side_range_m: float = 20.0
    """Longest range of the side lasers."""
    range_noise_m: float = 0.015
    """Standard deviation of a measured range; the normal distribution is cut at four of it."""
    dropout: float = 0.01
    """Share of echoes lost whatever their strength."""

    def __post_init__(self) -> None:
        """Refuse what no scan can have."""
        if not 16 <= self.top_columns <= 65535:
            raise ValueError(f"top_columns must be 16..65535, is {self.top_columns}")
        if len(self.side_shape) != 2 or not all(2 <= value <= 65535 for value in self.side_shape):
            raise ValueError(f"side_shape must be rows and columns, each 2..65535, is {self.side_shape}")
        if min(self.top_range_m, self.side_range_m) <= 1.0:
            raise ValueError(f"ranges must exceed 1 m, are {self.top_range_m} and {self.side_range_m}")
        if not (0.0 <= self.range_noise_m <= 0.5 and 0.0 <= self.dropout < 1.0):
            raise ValueError(f"need 0 <= range_noise_m <= 0.5 and 0 <= dropout < 1, have {self.range_noise_m}, {self.dropout}")


@dataclass(frozen=True, kw_only=True)
class Laser:
    """One laser: its place, its beams and which columns of its image see past the vehicle."""

    name: int
    """LaserName."""
    shape: tuple[int, int]
    """Rows and columns of the range image."""
    inclinations_rad: Float
    """(H,) ascending, as a calibration lists them; the image's rows go the other way."""
    inclination_range_rad: tuple[float, float] | None
    """Lowest and highest for uniform beams, which calibrations do not list."""
    vehicle_from_laser: Float
    """(4, 4)"""
    max_range_m: float
    columns: npt.NDArray[np.int64]
    """(n,) columns that are cast."""
    rolling: bool
    """Whether each column has the vehicle pose of its own moment."""

    @property
    def azimuth_rad(self) -> Float:
        """(n,) direction of the cast columns in the vehicle frame: columns turn clockwise, from back to back."""
        width = self.shape[1]
        azimuth: Float = ((width - self.columns - 0.5) / width * 2 - 1) * np.pi
        return azimuth


def top_inclinations_rad() -> Float:
    """(64,) ascending: three times as dense at the horizon as near the vehicle."""
    share = np.linspace(0.0, 1.0, TOP_ROWS)
    warped = 0.5 * share + 0.5 * (1 - (1 - share) ** 2)
    inclinations: Float = _TOP_LOWEST_RAD + (_TOP_HIGHEST_RAD - _TOP_LOWEST_RAD) * warped
    return inclinations


def lasers_of(config: SensorConfig, ego_size_m: Sequence[float]) -> tuple[Laser, ...]:
    """The five lasers of an ego vehicle of this length, width and height; TOP first."""
    length, width, height = (float(value) for value in ego_size_m)
    axle = REAR_AXLE_SHARE * length
    top = Laser(
        name=TOP,
        shape=(TOP_ROWS, config.top_columns),
        inclinations_rad=top_inclinations_rad(),
        inclination_range_rad=None,
        vehicle_from_laser=_placed(_TOP_YAW_RAD, (axle, 0.0, height + 0.3)),
        max_range_m=config.top_range_m,
        columns=np.arange(config.top_columns),
        rolling=True,
    )
    nose, tail = axle + length / 2, axle - length / 2
    places = (
        (FRONT, 0.0, (nose, 0.0, 0.7)),
        (SIDE_LEFT, np.pi / 2, (axle + 0.35 * length, width / 2, 0.95)),
        (SIDE_RIGHT, -np.pi / 2, (axle + 0.35 * length, -width / 2, 0.95)),
        (REAR, np.pi, (tail, 0.0, 0.6)),
    )
    return (top, *(_side_laser(name, yaw, place, config) for name, yaw, place in places))


def _side_laser(name: int, yaw_rad: float, place_m: tuple[float, float, float], config: SensorConfig) -> Laser:
    rows, width = config.side_shape
    span = _SIDE_HIGHEST_RAD - _SIDE_LOWEST_RAD
    azimuth = ((width - np.arange(width) - 0.5) / width * 2 - 1) * np.pi
    off_axis = np.angle(np.exp(1j * (azimuth - yaw_rad)))
    return Laser(
        name=name,
        shape=(rows, width),
        inclinations_rad=(np.arange(rows) + 0.5) / rows * span + _SIDE_LOWEST_RAD,
        inclination_range_rad=(float(_SIDE_LOWEST_RAD), float(_SIDE_HIGHEST_RAD)),
        vehicle_from_laser=_placed(yaw_rad, place_m),
        max_range_m=config.side_range_m,
        columns=np.flatnonzero(np.abs(off_axis) <= _SIDE_FIELD_RAD),
        rolling=False,
    )


def _placed(yaw_rad: float, place_m: tuple[float, float, float]) -> Float:
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(yaw_rad), -np.sin(yaw_rad)], [np.sin(yaw_rad), np.cos(yaw_rad)]]
    matrix[:3, 3] = place_m
    return matrix
