"""The published methods as plain loops over links, from the formulas of their papers: what golden traces are compared with.

Nothing here selects with sparse_core; random numbers alone come from its hash.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sparse_core.hashed_random import key_of, normal_at, uniform

Links = set[int]


@dataclass
class Layer:
    """A weight with its links as a set of flat positions."""

    name: str
    weight: Tensor
    links: Links = field(default_factory=set)
    ever: Links = field(default_factory=set)
    velocity: list[float] = field(default_factory=list)  # SGD's momentum
    average: list[float] = field(default_factory=list)  # SNFS's momentum of the dense gradient

    @property
    def size(self) -> int:
        return self.weight.numel()


@dataclass
class PlainLoop:
    """SGD with momentum on tanh(x A^T) B^T and squares, with an update of the links every so many steps."""

    layers: list[Layer]
    density: float
    end: int
    every: int
    seed: int
    lr: float
    update: Callable[["PlainLoop", int, list[list[float]]], None]
    updates: int = 0
    threshold: float = 0.1  # DSR's

    def start(self, density: float) -> None:
        for layer, count in zip(self.layers, erdos_renyi(self.layers, density), strict=True):
            number = uniform(layer.size, key_of(self.seed, 0, layer.name, "layout", "")).tolist()
            layer.links = set(best(range(layer.size), lambda place, n=number: -n[place], count))
            layer.ever = set(layer.links)
            layer.velocity, layer.average = [0.0] * layer.size, [0.0] * layer.size
            self.clear(layer)

    def clear(self, layer: Layer) -> None:
        off = [place for place in range(layer.size) if place not in layer.links]
        layer.weight.view(-1)[off] = 0

    def step(self, number: int, x: Tensor, target: Tensor) -> None:
        first, second = (layer.weight.clone().requires_grad_() for layer in self.layers)
        loss = (torch.tanh(x @ first.T) @ second.T - target).square().mean()
        gradients = [gradient.reshape(-1).tolist() for gradient in torch.autograd.grad(loss, [first, second])]
        for layer, gradient in zip(self.layers, gradients, strict=True):
            layer.average = [0.9 * old + 0.1 * new for old, new in zip(layer.average, gradient, strict=True)]
        if number % self.every == 0 and number <= self.end:
            self.updates += 1
            self.update(self, number, gradients)
        for layer, gradient in zip(self.layers, gradients, strict=True):
            flat = layer.weight.view(-1)
            for place in layer.links:
                layer.velocity[place] = 0.9 * layer.velocity[place] + gradient[place]
                flat[place] -= self.lr * layer.velocity[place]

    # The parts of an update.

    def at(self, number: int) -> int:
        """The step at which schedules are read: the last update has the end's values."""
        return self.end if number + self.every > self.end else number

    def cosine(self, number: int, start: float) -> float:
        return start / 2 * (1 + math.cos(math.pi * self.at(number) / self.end))

    def cubic(self, number: int, start: float) -> float:
        return self.density + (start - self.density) * (1 - self.at(number) / self.end) ** 3

    def random(self, layer: Layer) -> list[float]:
        return uniform(layer.size, key_of(self.seed, self.updates, layer.name, "grow", "")).tolist()

    def rewire(self, layer: Layer, kept: Links, grown: list[int], begin: Callable[[int], float] = lambda place: 0.0) -> None:
        new = set(grown) - layer.links  # what was dropped and comes back at once keeps weight and momentum
        layer.links = kept | set(grown)
        layer.ever |= layer.links
        for place in range(layer.size):
            if place not in layer.links or place in new:
                layer.velocity[place] = 0.0
        self.clear(layer)
        for place in new:
            layer.weight.view(-1)[place] = begin(place)


def best(places: object, key: Callable[[int], float], count: int) -> list[int]:
    """The `count` places with the smallest keys, equal ones by position."""
    return sorted(sorted(places), key=key)[:count]  # type: ignore[call-overload]


def erdos_renyi(layers: list[Layer], density: float) -> list[int]:
    """Links per layer in proportion to n_in + n_out, a layer that would overflow is full; largest remainders."""
    total = round(density * sum(layer.size for layer in layers))
    due = [float(sum(layer.weight.shape)) for layer in layers]
    return share_out(total, due, [layer.size for layer in layers])


def share_out(total: int, shares: list[float], caps: list[int]) -> list[int]:
    full: Links = set()
    while True:
        left = total - sum(caps[one] for one in full)
        free = [one for one in range(len(caps)) if one not in full]
        scale = left / sum(shares[one] for one in free) if free else 0.0
        exact = [float(caps[one]) if one in full else scale * shares[one] for one in range(len(caps))]
        over = {one for one in free if exact[one] >= caps[one]}
        if not over:
            break
        full |= over
    counts = [math.floor(value) for value in exact]
    for one in sorted(range(len(caps)), key=lambda one: counts[one] - exact[one])[: total - sum(counts)]:
        counts[one] += 1
    return counts


def magnitudes(layer: Layer) -> list[float]:
    return layer.weight.abs().view(-1).tolist()


def quota(layer_links: int, size: int, rate: float) -> int:
    return min(math.floor(rate * layer_links), size - layer_links)


def static(loop: PlainLoop, number: int, gradients: list[list[float]]) -> None:
    loop.updates -= 1


def signed_order(layer: Layer) -> Callable[[int], float]:
    """SET: the place among the links of the same sign, nearest to zero first, as a share of their number."""
    values = layer.weight.view(-1).tolist()
    order: dict[int, float] = {}
    for sign in (1, -1):
        same = sorted(
            (place for place in layer.links if values[place] * sign > 0), key=lambda place: (abs(values[place]), place)
        )
        order |= {place: rank / len(same) for rank, place in enumerate(same)}
    return lambda place: order.get(place, -1.0)


def set_update(loop: PlainLoop, number: int, gradients: list[list[float]]) -> None:
    for layer in loop.layers:
        count = quota(len(layer.links), layer.size, 0.3)
        kept = layer.links - set(best(layer.links, signed_order(layer), count))
        random = loop.random(layer)
        grown = best(set(range(layer.size)) - kept, lambda place, r=random: -r[place], count)
        normal = normal_at(torch.arange(layer.size), key_of(loop.seed, loop.updates, layer.name, "grow", "grown"))
        begin = (normal * 0.1).tolist()
        loop.rewire(layer, kept, grown, lambda place, b=begin: b[place])


def itop(loop: PlainLoop, number: int, gradients: list[list[float]]) -> None:
    for layer in loop.layers:
        count = quota(len(layer.links), layer.size, 0.3)
        kept = layer.links - set(best(layer.links, signed_order(layer), count))
        random = loop.random(layer)
        tried = set(layer.ever)
        grown = best(set(range(layer.size)) - kept, lambda place, r=random, t=tried: (place in t) - r[place] * 0.999, count)
        loop.rewire(layer, kept, grown)


def rigl(loop: PlainLoop, number: int, gradients: list[list[float]]) -> None:
    exchange_by_gradient(loop, gradients, loop.cosine(number, 0.3))


def exchange_by_gradient(loop: PlainLoop, gradients: list[list[float]], rate: float, gone: list[Links] | None = None) -> None:
    """RigL's exchange, of what is left where `gone` is dropped for good; all of that may come back, and then as it was."""
    for index, (layer, gradient) in enumerate(zip(loop.layers, gradients, strict=True)):
        left = layer.links - gone[index] if gone else layer.links
        count, size = quota(len(left), layer.size, rate), magnitudes(layer)
        kept = left - set(best(left, lambda place, s=size: s[place], count))
        grown = best(set(range(layer.size)) - kept, lambda place, g=gradient: -abs(g[place]), count)
        loop.rewire(layer, kept, grown)


def snfs(loop: PlainLoop, number: int, gradients: list[list[float]]) -> None:
    rate = loop.cosine(number, 0.5)
    kept, worth = [], []
    for layer in loop.layers:
        size = magnitudes(layer)
        worst = best(layer.links, lambda place, s=size: s[place], quota(len(layer.links), layer.size, rate))
        kept.append(layer.links - set(worst))
        worth.append(sum(abs(layer.average[place]) for place in layer.links) / len(layer.links))
    total = sum(len(layer.links) - len(left) for layer, left in zip(loop.layers, kept, strict=True))
    room = [layer.size - len(left) for layer, left in zip(loop.layers, kept, strict=True)]
    for layer, left, count in zip(loop.layers, kept, share_out(total, worth, room), strict=True):
        average = layer.average
        loop.rewire(layer, left, best(set(range(layer.size)) - left, lambda place, a=average: -abs(a[place]), count))


def mest(loop: PlainLoop, number: int, gradients: list[list[float]]) -> None:
    mest_to(loop, gradients, [len(layer.links) for layer in loop.layers])


def mest_soft(loop: PlainLoop, number: int, gradients: list[list[float]]) -> None:
    done = loop.at(number) / loop.end
    extra = 0.0 if done >= 1 else 0.1 if done < 0.6 else 0.05
    mest_to(loop, gradients, erdos_renyi(loop.layers, loop.density + extra))


def mest_to(loop: PlainLoop, gradients: list[list[float]], targets: list[int]) -> None:
    for layer, gradient, target in zip(loop.layers, gradients, targets, strict=True):
        shrink = max(0, len(layer.links) - target)
        left = len(layer.links) - shrink
        exchange, size = quota(left, layer.size, 0.3), magnitudes(layer)
        worst = best(layer.links, lambda place, s=size, g=gradient: s[place] + abs(g[place]), shrink + exchange)
        kept, random = layer.links - set(worst), loop.random(layer)
        grown = best(set(range(layer.size)) - kept, lambda place, r=random: -r[place], target - len(kept))
        loop.rewire(layer, kept, grown)


def gmp(loop: PlainLoop, number: int, gradients: list[list[float]]) -> None:
    for layer, gone in zip(loop.layers, smallest_over_all(loop, loop.cubic(number, 1.0)), strict=True):
        loop.rewire(layer, layer.links - gone, [])


def smallest_over_all(loop: PlainLoop, density: float) -> list[Links]:
    """By layer, the links that go for this density: the smallest of the whole model."""
    sizes = [magnitudes(layer) for layer in loop.layers]
    everything = [(sizes[index][place], index, place) for index, layer in enumerate(loop.layers) for place in layer.links]
    total = round(density * sum(layer.size for layer in loop.layers))
    gone = sorted(everything)[: len(everything) - total]
    return [{place for _, where, place in gone if where == index} for index in range(len(loop.layers))]


def granet(loop: PlainLoop, number: int, gradients: list[list[float]]) -> None:
    gone = smallest_over_all(loop, loop.cubic(number, 0.5))
    exchange_by_gradient(loop, gradients, loop.cosine(number, 0.5), gone)


def dsr(loop: PlainLoop, number: int, gradients: list[list[float]]) -> None:
    """Below the threshold goes, but a layer's largest; what went comes back by the layers' survivors; the threshold follows."""
    sizes = [magnitudes(layer) for layer in loop.layers]
    links = sum(len(layer.links) for layer in loop.layers)
    free = sum(layer.size for layer in loop.layers) - links
    wanted = min(math.floor(0.3 * links), free)
    below = [
        {place for place in layer.links if size[place] < loop.threshold} for layer, size in zip(loop.layers, sizes, strict=True)
    ]
    found = sum(map(len, below))
    largest = [best(layer.links, lambda place, s=size: -s[place], 1) for layer, size in zip(loop.layers, sizes, strict=True)]
    below = [gone - set(top) for gone, top in zip(below, largest, strict=True)]
    assert sum(map(len, below)) <= free
    kept = [layer.links - gone for layer, gone in zip(loop.layers, below, strict=True)]
    room = [layer.size - len(left) for layer, left in zip(loop.layers, kept, strict=True)]
    shared = share_out(sum(map(len, below)), [float(len(left)) for left in kept], room)
    for layer, left, count in zip(loop.layers, kept, shared, strict=True):
        random = loop.random(layer)
        loop.rewire(layer, left, best(set(range(layer.size)) - left, lambda place, r=random: -r[place], count))
    loop.threshold *= 2 if found < 0.9 * wanted else 0.5 if found > 1.1 * wanted else 1
