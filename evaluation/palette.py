"""Colours of everything that is drawn: Okabe and Ito's eight, which people with any kind of colour vision can tell apart."""

from __future__ import annotations

from limtr.scene import ObjectType

BLACK = "#000000"
ORANGE = "#E69F00"
SKY_BLUE = "#56B4E9"
GREEN = "#009E73"
YELLOW = "#F0E442"
BLUE = "#0072B2"
VERMILLION = "#D55E00"
PURPLE = "#CC79A7"

TYPE_COLORS = {ObjectType.VEHICLE: BLUE, ObjectType.PEDESTRIAN: VERMILLION, ObjectType.CYCLIST: GREEN}
"""Colour of each class; markers differ too, so that nothing is told by colour alone."""
OTHER_COLOR = "#8a8f98"
TRUTH_COLOR = "#111111"
