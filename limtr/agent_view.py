"""SceneBatch -> AgentBatch: every centre agent's view of its scene (MTR's and LiMTR's sample), built on the batch's device."""

from __future__ import annotations

import torch

from limtr.agent_batch import AgentBatch
from limtr.agent_features import center_tracks, context_rows, history_features, last_valid
from limtr.batch import SceneBatch
from limtr.config import ViewConfig
from limtr.lidar_view import lidar_view
from limtr.map_view import map_view


def build_agent_batch(batch: SceneBatch, view: ViewConfig) -> AgentBatch:
    """The agent-centric samples of all centre agents of the batch, in the floating type of its states.

    Context agents are the tracks with a valid history step, in the scene's order, padded to the largest scene of the batch;
    polylines are the `view.num_polylines` nearest ones, in the scene's order, or all where there are fewer. Nothing in
    padding or at invalid steps gets through, whatever it holds; all padding of the result is zero.

    The channels are `limtr.agent_features.HISTORY_CHANNELS`, those of `limtr.map_view.map_view` and of
    `limtr.lidar_view.lidar_view`. A scene without map has masked polylines only (at least one).
    """
    num_history = batch.current_step + 1
    scene, track = batch.center_scene, batch.center_track
    rows, real = context_rows(batch.track_valid[:, :, :num_history])
    own_state = batch.track_states[scene, track, batch.current_step]
    position, heading = own_state[:, 0:3], own_state[:, 6]

    at = (scene[:, None], rows[scene])
    tracks = center_tracks(batch.track_states[at], batch.track_valid[at] & real[scene][..., None], position, heading)
    past = tracks.steps(slice(num_history))
    is_center = (rows[scene] == track[:, None]) & real[scene]
    center_type = batch.track_type[scene, track]
    polylines = map_view(
        batch.polylines,
        batch.polyline_mask,
        batch.polyline_signal if view.traffic_signals else None,
        scene=scene,
        position=position,
        heading=heading,
        focus_offset_m=view.polyline_center_offset_m,
        num_polylines=view.num_polylines,
    )
    lidar_points, lidar_mask = None, None
    if view.use_lidar:
        lidar_points, lidar_mask = lidar_view(batch.lidar_points, batch.lidar_mask, center_type, view, position.dtype)
    center_index = is_center.to(torch.int8).argmax(dim=-1)
    future = None
    future_mask = None
    if batch.has_future:
        coming = tracks.steps(slice(num_history, None))
        future, future_mask = torch.cat((coming.position[..., 0:2], coming.velocity), dim=-1), coming.valid
    centers = torch.arange(len(scene), device=scene.device)
    return AgentBatch(
        agent_history=history_features(
            past,
            track_type=batch.track_type[at],
            is_center=is_center,
            is_sdc=rows[scene] == batch.sdc_track[scene][:, None],
            time_s=batch.timestamps_s[scene, :num_history],
            pedestrian_channel=not view.reference_pedestrian_channel,
            acceleration_across_gaps=view.reference_gap_acceleration,
        ),
        agent_history_mask=past.valid,
        agent_last_position=last_valid(past.position, past.valid),
        polylines=polylines.polylines,
        polyline_mask=polylines.mask,
        polyline_center=polylines.center,
        center_index=center_index,
        center_type=center_type,
        lidar_points=lidar_points,
        lidar_mask=lidar_mask,
        agent_future=future,
        agent_future_mask=future_mask,
        center_future=None if future is None else future[centers, center_index],
        center_future_mask=None if future_mask is None else future_mask[centers, center_index],
        center_position=position,
        center_heading=heading,
    )
