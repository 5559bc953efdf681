"""MTR and LiMTR restated plainly, with the reference's names and one Python loop per agent, query and head.

Written from the description of the models and sharing no code with `limtr`, it stands in for the reference where no golden
file is: it makes the arrays of a golden file for any configuration.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

KINDS = ("TYPE_VEHICLE", "TYPE_PEDESTRIAN", "TYPE_CYCLIST")
Keys = dict[str, Any]


def norm_mlp(width: int, widths: list[int], out: int | None = None) -> nn.Sequential:
    layers: list[nn.Module] = []
    for after in widths:
        layers += [nn.Linear(width, after, bias=False), nn.BatchNorm1d(after), nn.ReLU()]
        width = after
    return nn.Sequential(*layers, *([] if out is None else [nn.Linear(width, out)]))


def plain_mlp(width: int, widths: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for after in widths:
        layers += [nn.Linear(width, after), nn.ReLU()]
        width = after
    return nn.Sequential(*layers[:-1])


def sine(position: Tensor, width: int) -> Tensor:
    codes = []
    for axis in (1, 0):
        for channel in range(width // 2):
            angle = 2 * math.pi * position[..., axis] / 10000 ** (2 * (channel // 2) / (width // 2))
            codes.append(angle.cos() if channel % 2 else angle.sin())
    return torch.stack(codes, dim=-1)


def attend(query: Tensor, key: Tensor, value: Tensor, seen: list[list[int]], heads: int) -> Tensor:
    """Rows of `query` (Lq, D) attend to the rows of `key` and `value` that `seen` lists for each."""
    results = []
    for row, rows in enumerate(seen):
        parts = []
        for q, k, v in zip(query[row].chunk(heads), key[rows].chunk(heads, -1), value[rows].chunk(heads, -1), strict=True):
            parts.append(torch.softmax(k @ q / math.sqrt(len(q)), dim=0) @ v)
        results.append(torch.cat(parts) if rows else value.new_zeros(value.shape[-1]))
    return torch.stack(results)


class Points(nn.Module):
    """PointNet over valid elements; padded slots are zeros and count in an average."""

    def __init__(self, width: int, part: Keys, out: int | None = None, pooling: str = "max") -> None:
        super().__init__()
        before, dim = part["dim_pre_layers"], part["dim_bet_layers"]
        self.beside = part.get("add_global", True)
        self.pre_mlps = norm_mlp(width, [before] * part["num_pre_layers"])
        self.mlps = norm_mlp(before * (1 + self.beside), [dim] * part["num_bet_layers"])
        self.out_mlps = None if out is None else plain_mlp(dim, [dim, out])
        self.pooling = pooling

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        def pooled(values: Tensor) -> Tensor:
            padded = values.new_zeros(*mask.shape, values.shape[-1]).index_put(mask.nonzero(as_tuple=True), values)
            return padded.max(dim=2)[0] if self.pooling == "max" else padded.mean(dim=2)

        values = self.pre_mlps(x[mask])
        if self.beside:
            values = torch.cat((values, pooled(values)[mask.nonzero(as_tuple=True)[:2]]), dim=-1)
        result = pooled(self.mlps(values))
        if self.out_mlps is None:
            return result
        some = mask.any(dim=-1)
        out = self.out_mlps(result[some])
        return out.new_zeros(*some.shape, out.shape[-1]).index_put(some.nonzero(as_tuple=True), out)


class LidarPoints(nn.Module):
    def __init__(self, keys: Keys, channels: int) -> None:
        super().__init__()
        settings = keys["double_poly"]
        layers = settings.get("layers_per_block")
        over = {} if layers is None else {"num_pre_layers": layers, "num_bet_layers": layers}
        first, second, pooling = settings["part1"] | over, settings["part2"] | over, settings["pooling"]
        self.point_compression = Points(channels, first, pooling=pooling)
        self.time_compression: nn.Module
        self.is_linear = keys["lidar_encoder"] == "pointnet-linear"
        if self.is_linear:
            widths = [second["dim_bet_layers"]] * second["num_bet_layers"] + [keys["D_MODEL"]]
            self.time_compression = norm_mlp(settings["nr_timestamps"] * first["dim_bet_layers"], widths)
        else:
            self.time_compression = Points(first["dim_bet_layers"], second, keys["D_MODEL"], pooling)

    def forward(self, points: Tensor, mask: Tensor) -> Tensor:
        frames = self.point_compression(points, mask)
        if self.is_linear:
            return self.time_compression(frames.flatten(1))[:, None]
        return self.time_compression(frames[:, None], mask.any(dim=-1)[:, None])


class PackedAttention(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.randn(3 * dim, dim) / math.sqrt(dim))
        self.in_proj_bias = nn.Parameter(torch.randn(3 * dim) / 10)
        self.out_proj = nn.Linear(dim, dim)


class EncoderLayer(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.self_attn = heads, PackedAttention(dim)
        self.linear1, self.linear2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, x: Tensor, code: Tensor, seen: list[list[int]]) -> Tensor:
        weight, bias = self.self_attn.in_proj_weight.chunk(3), self.self_attn.in_proj_bias.chunk(3)
        q, k, v = (functional.linear(i, w, b) for i, w, b in zip((x + code, x + code, x), weight, bias, strict=True))
        x = self.norm1(x + self.self_attn.out_proj(attend(q, k, v, seen, self.heads)))
        return self.norm2(x + self.linear2(functional.relu(self.linear1(x))))


class Encoder(nn.Module):
    def __init__(self, keys: Keys, channels: int) -> None:
        super().__init__()
        self.keys = keys

        def part(kind: str, before: int) -> Keys:
            dim, layers = keys[f"NUM_CHANNEL_IN_MLP_{kind}"], keys[f"NUM_LAYER_IN_MLP_{kind}"]
            return {"num_pre_layers": before, "dim_pre_layers": dim, "num_bet_layers": layers - before, "dim_bet_layers": dim}

        self.agent_polyline_encoder = Points(keys["NUM_INPUT_ATTR_AGENT"] + 1, part("AGENT", 1), keys["D_MODEL"])
        before = keys["NUM_LAYER_IN_PRE_MLP_MAP"]
        self.map_polyline_encoder = Points(keys["NUM_INPUT_ATTR_MAP"], part("MAP", before), keys["D_MODEL"])
        self.self_attn_layers = nn.ModuleList(
            EncoderLayer(keys["D_MODEL"], keys["NUM_ATTN_HEAD"]) for _ in range(keys["NUM_ATTN_LAYERS"])
        )
        self.lidar_pointnet_encoder = LidarPoints(keys, channels) if keys.get("USE_LIDAR_POINTS") else None

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Any]:
        history, mask, center = batch["obj_trajs"], batch["obj_trajs_mask"], batch["track_index_to_predict"]
        rows = torch.arange(len(history))
        parts = [self.agent_polyline_encoder(torch.cat((history, mask[..., None].to(history)), dim=-1), mask),
                 self.map_polyline_encoder(batch["map_polylines"], batch["map_polylines_mask"])]  # fmt: skip
        valid = [mask.any(-1), batch["map_polylines_mask"].any(-1)]
        position = [batch["obj_trajs_last_pos"], batch["map_polylines_center"]]
        if self.lidar_pointnet_encoder is not None:
            parts.append(self.lidar_pointnet_encoder(batch["center_lidar_points"], batch["lidar_mask"]))
            valid.append(batch["lidar_mask"].flatten(1).any(-1, keepdim=True))
            position.append(history[rows, center, :, :3].mean(dim=1, keepdim=True))
        results = []
        for x, keep, where in zip(torch.cat(parts, 1), torch.cat(valid, 1), torch.cat(position, 1), strict=True):
            token, place = x[keep], where[keep]
            squared = (place[:, None] - place).square().sum(-1)
            seen = squared.argsort(dim=-1)[:, : self.keys["NUM_OF_ATTN_NEIGHBORS"]].tolist()
            for layer in self.self_attn_layers:
                token = layer(token, sine(place, self.keys["D_MODEL"]), seen)
            results.append(torch.zeros_like(x).index_put((keep.nonzero()[:, 0],), token))
        parts = list(torch.stack(results).split([part.shape[1] for part in parts], dim=1))
        return {"parts": parts, "valid": valid, "position": position, "center": parts[0][rows, center]}


class OutProjection(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.out_proj = nn.Linear(dim, dim)


class Branch(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.dim, self.heads = dim, heads
        for kind in ("sa_qcontent", "sa_qpos", "sa_kcontent", "sa_kpos", "sa_v",
                     "ca_qcontent", "ca_qpos", "ca_kcontent", "ca_kpos", "ca_v", "ca_qpos_sine"):  # fmt: skip
            setattr(self, f"{kind}_proj", nn.Linear(dim, dim))
        self.self_attn, self.cross_attn = OutProjection(dim), OutProjection(dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))
        self.linear1, self.linear2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(
        self, x: Tensor, static: Tensor, looks_at: Tensor, memory: Tensor, place: Tensor, seen: list[list[int]], first: bool
    ) -> Tensor:
        q = self.sa_qcontent_proj(x) + self.sa_qpos_proj(static)
        k = self.sa_kcontent_proj(x) + self.sa_kpos_proj(static)
        mixed = attend(q, k, self.sa_v_proj(x), [list(range(len(x)))] * len(x), self.heads)
        x = self.norm1(x + self.self_attn.out_proj(mixed))
        q, k = self.ca_qcontent_proj(x), self.ca_kcontent_proj(memory)
        beside_k = self.ca_kpos_proj(sine(place, self.dim))
        beside_q = self.ca_qpos_sine_proj(sine(looks_at, self.dim))
        if first:
            q, k = q + self.ca_qpos_proj(static), k + beside_k

        def by_head(content: Tensor, code: Tensor) -> Tensor:
            pairs = zip(content.chunk(self.heads, -1), code.chunk(self.heads, -1), strict=True)
            return torch.cat([part for pair in pairs for part in pair], dim=-1)

        mixed = attend(by_head(q, beside_q), by_head(k, beside_k), self.ca_v_proj(memory), seen, self.heads)
        x = self.norm2(x + self.cross_attn.out_proj(mixed))
        return self.norm3(x + self.linear2(functional.relu(self.linear1(x))))


class Decoder(nn.Module):
    def __init__(self, keys: Keys, width: int) -> None:
        super().__init__()
        self.keys = keys
        dim, depth, heads = keys["D_MODEL"], keys["NUM_DECODER_LAYERS"], keys["NUM_ATTN_HEAD"]
        map_dim, outputs = keys.get("MAP_D_MODEL", dim), 7 * keys["NUM_FUTURE_FRAMES"]
        self.in_proj_center_obj = plain_mlp(width * (2 if keys.get("CONCAT_LIDAR_CENTER") else 1), [dim, dim])
        self.in_proj_obj, self.in_proj_map = plain_mlp(width, [dim, dim]), plain_mlp(width, [map_dim, map_dim])
        self.obj_decoder_layers = nn.ModuleList(Branch(dim, heads) for _ in range(depth))
        self.map_decoder_layers = nn.ModuleList(Branch(map_dim, heads) for _ in range(depth))
        self.map_query_content_mlps = nn.ModuleList(nn.Linear(dim, map_dim) for _ in range(depth))
        self.map_query_embed_mlps = nn.Linear(dim, map_dim)
        self.obj_pos_encoding_layer, self.dense_future_head = plain_mlp(2, [dim] * 3), norm_mlp(2 * dim, [dim, dim], outputs)
        self.future_traj_mlps = plain_mlp(4 * keys["NUM_FUTURE_FRAMES"], [dim] * 3)
        self.traj_fusion_mlps, self.intention_query_mlps = plain_mlp(2 * dim, [dim] * 3), norm_mlp(dim, [dim], dim)
        self.query_feature_fusion_layers = nn.ModuleList(norm_mlp(2 * dim + map_dim, [dim], dim) for _ in range(depth))
        self.motion_reg_heads = nn.ModuleList(norm_mlp(dim, [dim, dim], outputs) for _ in range(depth))
        self.motion_cls_heads = nn.ModuleList(norm_mlp(dim, [dim, dim], 1) for _ in range(depth))

    def forward(self, scene: dict[str, Any], intentions: Tensor) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        keys, (rows, queries) = self.keys, intentions.shape[:2]
        dim, steps = keys["D_MODEL"], keys["NUM_FUTURE_FRAMES"]
        parts, valid, position = scene["parts"], scene["valid"], scene["position"]
        beside = [scene["center"]] + ([parts[2][:, 0]] if keys.get("CONCAT_LIDAR_CENTER") else [])
        center = self.in_proj_center_obj(torch.cat(beside, dim=-1))
        tokens = [0, 2] if keys.get("CONCAT_LIDAR_AGENTS") else [0]
        agents, seen, place = (torch.cat([kind[index] for index in tokens], dim=1) for kind in (parts, valid, position))
        feature, xy = self.in_proj_obj(agents[seen]), place[seen][:, :2]
        future = self.dense_future_head(torch.cat((self.obj_pos_encoding_layer(xy), feature), dim=-1)).view(-1, steps, 7)
        future = torch.cat((future[..., :2] + xy[:, None], future[..., 2:]), dim=-1)
        states = self.future_traj_mlps(future[..., [0, 1, 5, 6]].flatten(1))
        feature = self.traj_fusion_mlps(torch.cat((feature, states), dim=-1))
        where = seen.nonzero(as_tuple=True)
        agents = feature.new_zeros(*seen.shape, dim).index_put(where, feature)
        dense = feature.new_zeros(*seen.shape, steps, 7).index_put(where, future)[:, : parts[0].shape[1]]
        polylines, map_xy = self.in_proj_map(parts[1]), position[1][..., :2]
        static = self.intention_query_mlps(sine(intentions, dim).flatten(0, 1)).view(rows, queries, dim)
        content, waypoints, looks_at = torch.zeros_like(static), intentions[:, :, None], intentions
        predictions = []
        for index in range(keys["NUM_DECODER_LAYERS"]):
            fused = []
            for row in range(rows):
                known = [seen[row].nonzero()[:, 0].tolist()] * queries
                at = (looks_at[row], agents[row], place[row], known, index == 0)
                from_agents = self.obj_decoder_layers[index](content[row], static[row], *at)
                near = self.collect(waypoints[row].detach(), map_xy[row], valid[1][row])
                at = (looks_at[row], polylines[row], map_xy[row], near, index == 0)
                ask, embedding = self.map_query_content_mlps[index](content[row]), self.map_query_embed_mlps(static[row])
                from_map = self.map_decoder_layers[index](ask, embedding, *at)
                fused.append(torch.cat((center[row].expand(queries, -1), from_agents, from_map), dim=-1))
            flat = self.query_feature_fusion_layers[index](torch.cat(fused))
            scores = self.motion_cls_heads[index](flat).view(rows, queries)
            trajectories = self.motion_reg_heads[index](flat).view(rows, queries, steps, 7)
            predictions.append((scores, trajectories))
            content, waypoints = flat.view(rows, queries, dim), trajectories[..., :2]
            looks_at = waypoints[:, :, -1]
        return predictions, dense

    def collect(self, waypoints: Tensor, centers: Tensor, valid: Tensor) -> list[list[int]]:
        known = valid.nonzero()[:, 0].tolist()
        ahead = centers.new_tensor(self.keys["CENTER_OFFSET_OF_MAP"])
        base = sorted(known, key=lambda i: float((centers[i] - ahead).norm()))[: self.keys["NUM_BASE_MAP_POLYLINES"]]
        result = []
        for path in waypoints:
            distance = {i: float((path - centers[i]).norm(dim=-1).min()) for i in known}
            own = sorted(known, key=distance.__getitem__)[: self.keys["NUM_WAYPOINT_MAP_POLYLINES"]]
            result.append(sorted({*base, *own}))
        return result


class PlainReference(nn.Module):
    """The whole model; names and shapes of its state dict are the reference's."""

    def __init__(self, context: Keys, decoder: Keys, channels: int) -> None:
        super().__init__()
        self.context_encoder = Encoder(context, channels)
        self.motion_decoder = Decoder(decoder, context["D_MODEL"])

    def forward(self, batch: dict[str, Tensor], intentions: Tensor) -> tuple[Any, Any, Any]:
        scene = self.context_encoder(batch)
        return scene, *self.motion_decoder(scene, intentions)


def loss_terms(
    predictions: list[tuple[Tensor, Tensor]], dense: Tensor, batch: dict[str, Tensor], intentions: Tensor, keys: Keys,
    is_mtr: bool, kinds: list[int],
) -> dict[str, Tensor]:  # fmt: skip
    """Every term of the loss, agent by agent."""
    weights = keys.get("LOSS_WEIGHTS", {})
    class_weights = dense.new_tensor([keys["class_weights"][kind] if keys.get("class_weights") else 1.0 for kind in kinds])
    smoothed, near = keys.get("confidence_label_smoothing", 0.0), keys.get("confidence_knn_smoothing", 0)

    def errors(path: Tensor, truth: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        log_x, log_y = path[:, 2].clamp(-1.609, 5), path[:, 3].clamp(-1.609, 5)
        rho = path[:, 4].clamp(-0.5, 0.5)
        x, y = (truth[:, 0] - path[:, 0]) / log_x.exp(), (truth[:, 1] - path[:, 1]) / log_y.exp()
        nll = log_x + log_y + 0.5 * (1 - rho**2).log() + 0.5 / (1 - rho**2) * (x**2 + y**2 - 2 * rho * x * y)
        return (nll * mask).sum(), ((path[:, 5:7] - truth[:, 2:4]).abs().sum(-1) * mask).sum()

    future, mask = batch["center_gt_trajs"], batch["center_gt_trajs_mask"]
    last = batch["center_gt_final_valid_idx"].long()
    terms: dict[str, Tensor] = {}
    total = dense.new_zeros(())
    for index, (scores, paths) in enumerate(predictions):
        parts = []
        for row in range(len(future)):
            best = int((intentions[row] - future[row, last[row], :2]).norm(dim=-1).argmin())
            error = errors(paths[row, best], future[row], mask[row])
            surprise = scores[row].logsumexp(0) - scores[row]
            wrong = surprise[best]
            if near:
                closest = (intentions[row] - future[row, last[row], :2]).norm(dim=-1).argsort()[:near]
                wrong = 0.9 * surprise[best] + 0.1 * surprise[closest].mean()
            if smoothed:
                wrong = (1 - smoothed) * wrong + smoothed * surprise.mean()
            parts.append(torch.stack((*error, wrong)))
        each = torch.stack(parts) * mask.new_tensor([weights.get(k, d) for k, d in (("reg", 1), ("vel", 0.2), ("cls", 1))])
        mean, weighted = each.mean(0), (each * class_weights[:, None]).mean(0)
        terms |= {f"loss_layer{index}_{name}": value for name, value in zip(("reg_gmm", "reg_vel", "cls"), mean, strict=True)}
        terms[f"loss_layer{index}"] = weighted[0] + weighted[1] + weighted[2] * (len(future) if is_mtr else 1)
        total = total + terms[f"loss_layer{index}"] / len(predictions)
    rows = []
    for row, known in enumerate(batch["obj_trajs_future_mask"]):
        truth = batch["obj_trajs_future_state"][row]
        each = [sum(errors(dense[row, agent], truth[agent], known[agent])) for agent in known.any(-1).nonzero()[:, 0]]
        rows.append(sum(each, dense.new_zeros(())) / max(len(each), 1))
    terms["loss_dense_prediction"] = torch.stack(rows).mean()
    return terms | {"loss": total + terms["loss_dense_prediction"]}


def suppress(paths: Tensor, scores: Tensor, count: int, distance_m: list[float]) -> tuple[Tensor, Tensor]:
    """Non-maximum suppression, mode by mode."""
    rows = []
    for ends, score, distance in zip(paths[:, :, -1, :2], scores, distance_m, strict=True):
        value, taken = score.clone(), []
        for _ in range(count):
            order = sorted(range(len(score)), key=lambda mode: -float(score[mode]))
            taken.append(max((mode for mode in order if mode not in taken), key=lambda mode: float(value[mode])))
            value[(ends - ends[taken[-1]]).norm(dim=-1) < distance] = 0
        rows.append(taken)
    index = torch.arange(len(rows))[:, None], torch.tensor(rows)
    return paths[index], scores[index]


def golden_arrays(
    context: Keys, decoder: Keys, batch: dict[str, Tensor], kinds: list[int], intentions: Tensor, *, model: str, channels: int
) -> dict[str, np.ndarray[Any, Any]]:
    """What a golden file holds, for a randomly initialised model; `intentions` (3, Q, 2), `kinds` one of 0..2 per agent."""
    net = PlainReference(context, decoder, channels).double()
    with torch.no_grad():
        for name, value in (*net.named_parameters(), *net.named_buffers()):
            if value.dim() == 1:
                value += 0.3 * torch.rand_like(value)
            if "reg_heads" in name and name.endswith("6.weight"):
                value *= 8
    arrays = {f"state/{name}": value.clone() for name, value in net.state_dict().items()}
    if model != "mtr":
        arrays |= {f"state/motion_decoder.intention_points_{k}": p for k, p in zip(KINDS, intentions, strict=True)}
    arrays |= {f"intention/{kind}": points for kind, points in zip(KINDS, intentions, strict=True)}
    arrays |= {f"input/{name}": value for name, value in batch.items()}
    own = intentions[kinds]
    with torch.no_grad():
        scene, predictions, _ = net.eval()(batch, own)
    names = ("obj_feature", "map_feature", "lidar_feature")
    arrays |= {"eval/center_objects_feature": scene["center"]}
    arrays |= {f"eval/{name}": part for name, part in zip(names, scene["parts"], strict=False)}
    paths, scores = predictions[-1][1], predictions[-1][0].softmax(-1)
    distance = decoder.get("NMS_DIST_THRESH", 2.5)
    distances = [distance[KINDS[kind]] if isinstance(distance, dict) else distance for kind in kinds]
    count = decoder["NUM_MOTION_MODES"]
    modes = (paths, scores) if count == scores.shape[1] else suppress(paths, scores, count, distances)
    arrays |= {"eval/pred_trajs": modes[0], "eval/pred_scores": modes[1]}
    _, predictions, dense = net.train()(batch, own)
    terms = loss_terms(predictions, dense, batch, own, decoder, model == "mtr", kinds)
    terms["loss"].backward()
    for index, layer in enumerate(predictions):
        arrays |= {f"train/layer{index}/{name}": value for name, value in zip(("scores", "trajs"), layer, strict=True)}
    arrays |= {"train/pred_dense_trajs": dense, "train/loss": terms["loss"]}
    for name, parameter in net.named_parameters():
        norm = torch.tensor(-1.0) if parameter.grad is None else parameter.grad.norm()
        arrays[f"grad_norm/{name}"] = norm
    meta = {"model": model, "context_encoder": context, "motion_decoder": decoder}
    meta["loss_terms"] = {name: float(value.detach()) for name, value in terms.items()}
    plain = {name: value.detach().numpy() for name, value in arrays.items()}
    return plain | {
        "input/center_objects_type": np.array([KINDS[kind] for kind in kinds]), "meta_json": np.array(json.dumps(meta)),
    }  # fmt: skip
