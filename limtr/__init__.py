"""LiMTR: motion prediction from tracks, map and LiDAR, in plain PyTorch.

Shape legend, used in every docstring of this project:

====== ==========================================================
letter meaning
====== ==========================================================
S      scenes in a batch
C      centre agents: the agents whose future is predicted
A      agents (tracks) of a scene
T      time steps (11 history steps, 80 future steps, 91 in all)
P      map polylines
L      points per polyline (20)
M      map points of a scene
N      LiDAR points
Q      motion queries (intention points)
K      modes kept after non-maximum suppression
D      channels
F      features
====== ==========================================================
"""

__version__ = "0.1.0"
