"""Cannistraci-Hebb training as plain loops over links and nodes, from its papers: what golden traces are compared with."""

import math
from collections.abc import Callable

from sparse_core.hashed_random import key_of, uniform
from tests.sparse_core.plain_loops import Layer, Links, PlainLoop, best, magnitudes, quota

Importance = Callable[[Layer], list[float]]


def cht(loop: PlainLoop, number: int, gradients: list[list[float]]) -> None:
    hard(loop, magnitudes)


def cht_by_importance(loop: PlainLoop, number: int, gradients: list[list[float]]) -> None:
    hard(loop, importances)


def chts(loop: PlainLoop, number: int, gradients: list[list[float]]) -> None:
    soft(loop, number, magnitudes)


def chts_by_importance(loop: PlainLoop, number: int, gradients: list[list[float]]) -> None:
    soft(loop, number, importances)


def hard(loop: PlainLoop, importance: Importance) -> None:
    for layer in loop.layers:
        count, worth = quota(len(layer.links), layer.size, 0.3), importance(layer)
        kept = layer.links - set(best(layer.links, lambda place, w=worth: w[place], count))
        closed, ties = paths_closed(layer, kept), hashed(loop, layer, "grow", "ties")
        order = lambda place, c=closed, t=ties: (-c[place], -t[place])  # noqa: E731
        loop.rewire(layer, kept, sorted(set(range(layer.size)) - kept, key=order)[:count])


def soft(loop: PlainLoop, number: int, importance: Importance) -> None:
    """What stays is drawn one by one in proportion to importance ** T, what comes in proportion to the paths.

    A draw in proportion to some numbers p is the first of alarms that ring after an exponential time with rate p.
    """
    temperature = 1 + 2 * number / loop.end
    for layer in loop.layers:
        count, worth = quota(len(layer.links), layer.size, 0.3), importance(layer)
        chances = [one**temperature for one in worth]
        kept = set(first_to_ring(layer.links, chances, alarms(loop, layer, "drop"), len(layer.links) - count))
        closed, idle = paths_closed(layer, kept), set(range(layer.size)) - kept
        loop.rewire(layer, kept, first_to_ring(idle, closed, alarms(loop, layer, "grow"), count))


def first_to_ring(places: Links, rates: list[float], alarm: list[float], count: int) -> list[int]:
    """The `count` places whose alarms ring first; alarms of rate 0 ring after all others, in the order of rate 1."""
    return sorted(places, key=lambda place: (alarm[place] / rates[place] if rates[place] else math.inf, alarm[place]))[:count]


def hashed(loop: PlainLoop, layer: Layer, role: str, salt: str) -> list[float]:
    return uniform(layer.size, key_of(loop.seed, loop.updates, layer.name, role, salt)).tolist()


def alarms(loop: PlainLoop, layer: Layer, role: str) -> list[float]:
    """Exponentially distributed numbers of rate 1."""
    coarse, fine = hashed(loop, layer, role, "coarse"), hashed(loop, layer, role, "fine")
    return [-math.log(one + (two + 2**-25) / 2**24) for one, two in zip(coarse, fine, strict=True)]


def importances(layer: Layer) -> list[float]:
    rows, columns = layer.weight.shape
    size = layer.weight.abs().tolist()
    of_row = [sum(row) for row in size]
    of_column = [sum(row[j] for row in size) for j in range(columns)]
    return [
        size[i][j] / of_row[i] + size[i][j] / of_column[j] if size[i][j] else 0.0 for i in range(rows) for j in range(columns)
    ]


def paths_closed(layer: Layer, kept: Links) -> list[float]:
    """CH3-L3: over the nodes on paths of length three between the ends of a non-link, 1 / (1 + links that leave them)."""
    rows, columns = layer.weight.shape
    inputs_of = [{place % columns for place in kept if place // columns == i} for i in range(rows)]
    outputs_of = [{place // columns for place in kept if place % columns == j} for j in range(columns)]
    closed = []
    for i in range(rows):
        for j in range(columns):
            outputs = {z for z in outputs_of[j] if inputs_of[z] & inputs_of[i]}
            inputs = {t for t in inputs_of[i] if outputs_of[t] & outputs_of[j]}
            score = sum(1 / (1 + len(inputs_of[z] - inputs - {j})) for z in outputs)
            score += sum(1 / (1 + len(outputs_of[t] - outputs - {i})) for t in inputs)
            closed.append(0.0 if i * columns + j in kept else round(score * 2**30) / 2**30)
    return closed
