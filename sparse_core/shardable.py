"""What of a method works under FSDP2, where no rank has a whole layer: the rest is refused before anything is changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from sparse_core.layer import SparseLayer
from sparse_core.method import Method
from sparse_core.scores import ELEMENTWISE, Score, is_elementwise, score_name, watches_every_step

_METHOD = {
    "density", "layout", "structure", "drop", "grow", "rate", "every", "offset", "end", "scope", "grown_value", "on_update",
    "final_prune", "share",
}  # fmt: skip
_LAYOUT = {"name", "shares", "densities"}


def refuse_unshardable(layers: Sequence[SparseLayer], method: Method, seed: int) -> None:
    """Raise if some layers are sharded and the method needs whole ones. Every rank must call it.

    Raises:
        ValueError: what it is, with a remedy; or the ranks were told different things.
    """
    shards = [layer.shard for layer in layers if layer.shard is not None]
    if not shards:
        return
    if any(shard.mesh != shards[0].mesh for shard in shards):
        raise ValueError("the sparse weights are sharded over different meshes; call sparsify once for those of each")
    for field in fields(method):
        if field.name not in _METHOD and getattr(method, field.name) != field.default:
            raise ValueError(
                f"Method.{field.name} does not work on the rows that a rank has after fully_shard; leave it out, or train with "
                "DistributedDataParallel"
            )
    ranking = [field.name for field in fields(method.spread) if getattr(method.spread, field.name) is not None]
    if not set(ranking) <= _LAYOUT:
        raise ValueError(
            f"the layout {method.spread.name} ranks whole weights over all layers, which no rank has after fully_shard; find "
            "the first links in one process without it, and load its engine.state_dict() here"
        )
    for score in (method.drop, method.grow, method.share):
        _refuse_watching(score)
    if not shards[0].agree([seed, len(layers)]):
        raise ValueError(f"sparsify was called with seed {seed} for {len(layers)} weights here, and with others on other ranks")


def _refuse_watching(score: Score | None) -> None:
    if watches_every_step(score) and not is_elementwise(score):
        raise ValueError(
            f"the score {score_name(score)} wants the gradient of every step, and under fully_shard a layer is never gathered "
            f"for that. {ELEMENTWISE}"
        )
