"""Planning an update of all layers: scores, counts, selections. Nothing is changed here, so an update can be refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from sparse_core import rewire
from sparse_core.constant_fan_in import even_counts
from sparse_core.layer import LayerInput, LayerPlan, Moment, SparseLayer
from sparse_core.layer_work import LayerWork
from sparse_core.layout import counts_of, share_out
from sparse_core.method import Method
from sparse_core.radix import count_true, number
from sparse_core.scores import Score, score_name, survivors
from sparse_core.selection import take_largest
from sparse_core.threshold import Threshold, count_below, strongest

_THRESHOLD = "threshold"  # in the layers' memory, so that it is saved with them
_THRESHOLD_OF = "threshold of update"


def plan(layers: Sequence[SparseLayer], inputs: Sequence[LayerInput], method: Method, moment: Moment) -> list[LayerPlan]:
    """What the update would do.

    Layers without a gradient are left as they are if a score needs one.

    Raises:
        FloatingPointError: a score that is not finite, with the layer's name.
        ValueError: a density that rises in a method that grows nothing; a score of a wrong shape.
    """
    ready = [
        (layer, given)
        for layer, given in zip(layers, inputs, strict=True)
        if given.gradient is not None or not method.reads_gradient
    ]
    if not ready:
        return []
    work = [LayerWork(layer, given, method, moment) for layer, given in ready]
    memories = [dict(layer.memory) for layer, _ in ready]
    try:
        if method.off_mask is not None and method.drop is method.grow and moment.rate == 1:
            return _best(work, method, moment)
        for one in work:
            one.count()
        _choose_drops(work, method, moment)
        growth = _growth(work, method)
        results = [one.finish(amount) for one, amount in zip(work, growth, strict=True)]
        return _read(work, results, method)
    except Exception:
        for (layer, _), memory in zip(ready, memories, strict=True):
            layer.memory = memory  # scores that average have taken in what made the update fail
        raise


def _choose_drops(work: list[LayerWork], method: Method, moment: Moment) -> None:
    if method.scope == "layer":
        targets = _layer_targets(work, method, moment)
        if moment.density is not None:
            layers = [one.layer for one in work]
            changes = [sum(new) - sum(layer.counts) for layer, new in zip(layers, targets, strict=True)]
            _check_change(work, _everywhere(layers, changes), method)
        for one, target in zip(work, targets, strict=True):
            if method.fan_in is not None:
                one.drop_by_row(sum(target))
                continue
            one.rise = one.on_device([max(0, new - old) for new, old in zip(target, one.layer.counts, strict=True)])
            shrink = one.on_device([max(0, old - new) for new, old in zip(target, one.layer.counts, strict=True)])
            one.drop(shrink, one.score(method.drop, "drop"))
        return
    # Layers with a density of their own exchange links among themselves only.
    for one in work:
        if one.layer.fixed_density is not None:
            one.drop(torch.zeros_like(one.counts), one.score(method.drop, "drop"))
    pool = [one for one in work if one.layer.fixed_density is None]
    if pool:
        _choose_drops_over_all(pool, method, moment)


def _choose_drops_over_all(work: list[LayerWork], method: Method, moment: Moment) -> None:
    change = _total_target(work, method, moment) - sum(sum(one.layer.counts) for one in work)
    _check_change(work, change, method)
    if change > 0:
        rises = share_out(
            change, _stacked(one.counts for one in work).double(), _stacked(one.room - one.counts for one in work)
        )
        for one, rise in zip(work, rises, strict=True):
            one.rise = rise.view(1)
    scores = [one.score(method.drop, "drop") for one in work]
    for one, score in zip(work, scores, strict=True):
        one.not_finite = one.not_finite + (one.active & ~torch.isfinite(score)).sum()
        if method.threshold is not None:
            one.spared = strongest(score, one.kept)
    if change < 0:
        _drop_over_all(work, scores, work[0].on_device([-change]), exchange=False)
    if method.scope == "global":
        left = _stacked(one.counts for one in work).sum().view(1)
        room = _stacked(one.room for one in work).sum().view(1)
        wanted = rewire.exchange_quota(left, room - left, moment.rate).total
        if method.threshold is not None:
            _drop_below(work, scores, wanted, (room - left).view(()), method.threshold, moment)
        else:
            _drop_over_all(work, scores, wanted, exchange=True)
        return
    for one, score in zip(work, scores, strict=True):
        one.drop(torch.zeros_like(one.counts), score)


def _drop_below(
    work: list[LayerWork], scores: list[Tensor], wanted: Tensor, free: Tensor, threshold: Threshold, moment: Moment
) -> None:
    """Drop what is below a threshold, which every layer's memory holds; but no more than is free, and nothing spared."""
    memories = [one.layer.memory for one in work if _THRESHOLD in one.layer.memory]
    newest = max(memories, key=lambda memory: number(memory[_THRESHOLD_OF]), default=None)  # others were frozen meanwhile
    now = threshold.first(wanted.device) if newest is None else newest[_THRESHOLD].to(wanted.device)
    below = count_below(now, scores, [one.kept for one in work])
    if not moment.dry:
        following = threshold.following(now, below, wanted)
        for one in work:
            one.layer.memory[_THRESHOLD], one.layer.memory[_THRESHOLD_OF] = following, torch.tensor(moment.update)
    below = torch.minimum(count_below(now, scores, [one.may_go for one in work]), free)
    _drop_over_all(work, scores, torch.where(wanted > 0, below, 0), exchange=True)


def _best(work: list[LayerWork], method: Method, moment: Moment) -> list[LayerPlan]:
    """An exchange of all links by one score: the best of all units become links. Their number is known beforehand."""
    plans, facts = [], []
    for one, target in zip(work, _layer_targets(work, method, moment), strict=True):
        grid, kept = one.layer.grid, one.layer.off_mask
        assert kept is not None
        if kept.counts is None or kept.counts[0] is not target:
            kept.counts = (target, one.on_device(target))
        chosen = take_largest(one.score(method.grow, "grow"), one.layer.allowed_units(), kept.counts[1])
        mask = grid.mask_of(chosen.taken)
        facts += [
            chosen.not_finite.to(work[0].active.device),
            count_true(mask & ~one.layer.mask).sum().to(work[0].active.device),
        ]
        plans.append((one.layer, mask, one.layer.mask & ~mask, target))
    numbers = torch.stack(facts).tolist()
    for (layer, *_), bad in zip(plans, numbers[::2], strict=True):
        _refuse_not_finite(layer, bad, method)
    units = [sum(target) for *_, target in plans]
    return [
        LayerPlan(*one, grown_links=grown, active_here=count, active_everywhere=count)
        for one, grown, count in zip(plans, numbers[1::2], units, strict=True)
    ]


def _refuse_not_finite(layer: SparseLayer, bad: int, method: Method) -> None:
    if bad:
        raise FloatingPointError(
            f"{layer.name}: {bad} scores of {score_name(method.drop)} (drop) or {score_name(method.grow)} (grow) "
            "are not finite; nothing was changed. Look for an infinite weight or gradient"
        )


def _check_change(work: list[LayerWork], change: int, method: Method) -> None:
    missing = "rises, but Method.grow" if change > 0 and method.grow is None else ""
    missing = "falls, but Method.drop" if change < 0 and method.drop is None else missing
    if missing:
        raise ValueError(f"{work[0].layer.name} and others: the density {missing} is None")


def _drop_over_all(work: list[LayerWork], scores: list[Tensor], count: Tensor, exchange: bool) -> None:
    shards = [one.layer.shard for one in work]
    for one, stays in zip(work, rewire.drop_over_all([one.may_go for one in work], scores, count, shards), strict=True):
        keeps = stays if one.spared is None else stays | one.spared
        dropped = one.over_ranks(count_true(one.kept) - count_true(keeps))
        one.kept = keeps
        if exchange:
            one.exchanged = dropped
        else:
            one.counts = one.counts - dropped


def _stacked(counts: Iterable[Tensor]) -> Tensor:
    """One number per layer: its units over all groups."""
    return torch.stack([count.sum() for count in counts])


def _growth(work: list[LayerWork], method: Method) -> list[Tensor]:
    """How many units each group of each layer grows."""
    own = [one.exchanged + one.rise for one in work]
    pool = [index for index, one in enumerate(work) if one.layer.fixed_density is None]
    if method.share is not None and pool:
        for index, amount in zip(pool, _shared_growth([work[index] for index in pool], method.share), strict=True):
            own[index] = amount
    return own


def _shared_growth(work: list[LayerWork], share: Score) -> list[Tensor]:
    """The growth of all these layers together, in proportion to the mean of a score over their active links, or to these."""
    means: list[Tensor] = []
    for one in work:
        if share is survivors:
            means.append(one.over_ranks(count_true(one.kept).sum()))
            continue
        worth = one.score(share, "share")
        worth = one.over_ranks(torch.where(one.active, worth, 0.0).sum())
        means.append(worth / one.over_ranks(count_true(one.active).sum()).clamp(min=1))
    total = _stacked(one.exchanged + one.rise for one in work).sum()
    room = _stacked(one.room - one.over_ranks(count_true(one.kept)) for one in work)
    shared = share_out(total, torch.stack(means).double().nan_to_num(), room)
    return [amount.view(1) for amount in shared]


def _layer_targets(work: list[LayerWork], method: Method, moment: Moment) -> list[list[int]]:
    """Active units per group that each layer should have after the update, before exchanges."""
    layers = [one.layer for one in work]
    if moment.density is None:
        return [layer.counts for layer in layers]
    targets = group_counts(layers, method, moment.density)
    if method.grow is None:
        return _none_above(targets, layers)
    if method.share is None:
        return targets
    # Growth by share moved links between layers; a density that changes keeps what it brought about.
    pool = [index for index, layer in enumerate(layers) if layer.fixed_density is None]
    shares = torch.tensor([sum(layers[index].counts) for index in pool], dtype=torch.float64)
    caps = torch.tensor([sum(layers[index].grid.room()) for index in pool])
    total = sum(sum(targets[index]) for index in pool)
    for index, count in zip(pool, share_out(total, shares, caps).tolist(), strict=True):
        targets[index] = [count]
    return targets


def _none_above(targets: list[list[int]], layers: Sequence[SparseLayer]) -> list[list[int]]:
    """Targets for a method that grows nothing: where rounding would give a layer a link more than it has, others keep one."""
    total = _everywhere(layers, [sum(target) * layer.grid.members for target, layer in zip(targets, layers, strict=True)])
    grouped = [layer.groups_of is not None or layer.grid.groups > 1 for layer in layers]
    loose = [many or layer.grid.members > 1 for many, layer in zip(grouped, layers, strict=True)]
    slack = _everywhere(
        layers, [layer.grid.groups * layer.grid.members * one for one, layer in zip(loose, layers, strict=True)]
    )
    if total > sum(layer.links for layer in layers) + slack:
        return targets  # more than rounding explains: a density that rises is refused
    capped = [list(map(min, target, layer.counts)) for target, layer in zip(targets, layers, strict=True)]
    if any(grouped) or any(layer.grid.members != layers[0].grid.members for layer in layers):
        return capped
    room = torch.tensor([layer.counts[0] - target for [target], layer in zip(capped, layers, strict=True)])
    spare = share_out(sum(map(sum, targets)) - sum(map(sum, capped)), room.double(), room).tolist()
    return [[target + more] for [target], more in zip(capped, spare, strict=True)]


def _everywhere(layers: Sequence[SparseLayer], numbers: Sequence[int]) -> int:
    """The sum of a number for each layer; where its groups are shared out over ranks, the number is of those here."""
    shards = [layer.groups_of for layer in layers]
    shard = next((one for one in shards if one is not None), None)
    if shard is None:
        return sum(numbers)
    here = sum(amount for amount, one in zip(numbers, shards, strict=True) if one is not None)
    return sum(numbers) - here + number(shard.sum(torch.tensor([here], device=layers[0].mask.device)))


def _total_target(work: list[LayerWork], method: Method, moment: Moment) -> int:
    layers = [one.layer for one in work]
    counts = [layer.counts for layer in layers] if moment.density is None else group_counts(layers, method, moment.density)
    return sum(map(sum, counts))


def _read(work: list[LayerWork], units: list[Tensor], method: Method) -> list[LayerPlan]:
    """The one moment at which an update waits for the device: counts and bad scores of all layers at once."""
    masks = [one.layer.grid.mask_of(new) for one, new in zip(work, units, strict=True)]
    facts, of_all_ranks = [], []
    device = work[0].active.device
    for one, new in zip(work, units, strict=True):
        counts_here = count_true(new).to(device)
        facts += [
            one.not_finite.view(1).to(device),
            count_true(new & ~one.active).sum().view(1).to(device),
            counts_here,
        ]
        if one.layer.shard is not None:
            of_all_ranks.append(torch.stack([one.not_finite.to(device), counts_here.sum()]))
    shard = next((one.layer.shard for one in work if one.layer.shard is not None), None)
    totals = [] if shard is None else [shard.sum(torch.cat(of_all_ranks))]
    numbers = torch.cat(totals + facts).tolist()
    everywhere, numbers = iter(numbers[: 2 * len(of_all_ranks)]), numbers[2 * len(of_all_ranks) :]
    plans = []
    for one, new, mask in zip(work, units, masks, strict=True):
        bad, grown, counts = numbers[0], numbers[1], numbers[2 : 2 + new.shape[0]]
        numbers = numbers[2 + new.shape[0] :]
        here = total = sum(counts)
        if one.layer.shard is not None:
            bad, total = next(everywhere), next(everywhere)
            counts = counts if one.layer.units_of is None else [total]
        _refuse_not_finite(one.layer, bad, method)
        dropped = one.layer.grid.mask_of(one.active & ~one.kept)
        plans.append(LayerPlan(one.layer, mask, dropped, counts, grown * one.layer.grid.members, here, total))
    return plans


def group_counts(layers: Sequence[SparseLayer], method: Method, density: float | None) -> list[list[int]]:
    """Active units in every group of every layer, at a density.

    A single group of single weights gets the layout's number exactly; other structures the nearest that they can have.
    """
    fixed = {layer.name: layer.fixed_density for layer in layers if layer.fixed_density is not None}
    if method.spread.ranked:
        free = [layer for layer in layers if layer.name not in fixed]
        assert density is not None
        total = round(density * sum(layer.size for layer in free))
        proportion = torch.tensor([float(layer.links or layer.size) for layer in free], dtype=torch.float64)
        shared = iter(share_out(total, proportion, torch.tensor([layer.size for layer in free])).tolist() if free else [])
        links = [round(fixed[layer.name] * layer.size) if layer.name in fixed else next(shared) for layer in layers]
    else:
        links = counts_of(method.spread, [layer.as_layout_layer() for layer in layers], density, fixed)
    counts, carry = [], 0.0
    for layer, wanted in zip(layers, links, strict=True):
        room, members = layer.grid.room(), layer.grid.members
        together = layer.grid.groups == 1 and layer.groups_of is None  # a rank may have a single group of several
        if together and layer.fixed_density is not None:
            counts.append([min(max(1, int(wanted / members + 0.5)), room[0])])
        elif together:
            # What one layer's whole units cannot express, the next layer makes up for.
            exact = (wanted + carry) / members
            units = min(max(1, int(exact + 0.5)), room[0])
            carry += wanted - units * members
            counts.append([units])
        elif method.fan_in is not None:
            least = sum(map(bool, room))
            counts.append(even_counts(max(least, int(wanted / members + 0.5)), torch.tensor(room)).tolist())
        else:
            share = wanted / layer.size
            counts.append([min(max(1 if one else 0, int(share * one + 0.5)), one) for one in room])
    return counts
