"""How vehicles and cyclists advance: IDM with lights, stop signs, right of way and pedestrians on their way.

IDM: Treiber, Hennecke and Helbing, "Congested traffic states in empirical observations and microscopic simulations", 2000.
"""

from __future__ import annotations

import numpy as np

from preprocessing.synthetic.conflicts import find_zones
from preprocessing.synthetic.paths import Paths
from preprocessing.synthetic.plans import Plan
from preprocessing.synthetic.world import BodyKind, Float, Int

LOOK_AHEAD_M = 46.0
LOOK_STEP_M = 2.0
PEOPLE_AHEAD_M = 30.0
DECIDE_EVERY = 3
STOP, CAUTION = 4, 5
PATIENCE_S = 2.0
FAR_M = 1e3


class Traffic:
    """A actors on fixed paths, advanced step by step; only their accelerations are decided on the way.

    Args:
        plans: of A vehicles and cyclists.
        paths: of the same actors.
        signal_state: (G, T) state of every light at the simulated steps.
        people_m: (P, T, 2) where pedestrians who cross are at those steps; they do not react, so this is known.
        parked: discs (n, 3) that cover the parked vehicles: x, y and diameter (m).
        step_s: time step.
    """

    def __init__(
        self, plans: list[Plan], paths: Paths, signal_state: Int, people_m: Float, parked: Float, step_s: float
    ) -> None:
        self.plans, self.paths, self.step_s = plans, paths, step_s
        self.signal_state = signal_state
        self.people_m = people_m
        self.length = np.array([plan.size_m[0] for plan in plans])
        self.width = np.array([plan.size_m[1] for plan in plans])
        self.kind = np.array([plan.kind for plan in plans])
        bike = self.kind == BodyKind.CYCLIST
        heavy = (self.kind == BodyKind.TRUCK) | (self.kind == BodyKind.BUS)
        self.cruise = np.array([plan.cruise_mps for plan in plans])
        self.stop_at = np.array([plan.stop_m for plan in plans])
        self.signal = np.array([plan.signal for plan in plans], dtype=np.int64)
        self.must_stop = np.array([plan.stop_sign for plan in plans])
        self.hold = np.array([plan.hold_m for plan in plans])
        self.hold_until = np.array([plan.hold_until_s for plan in plans])
        self.priority = np.array([plan.priority for plan in plans])
        self.ring = np.array([plan.ring for plan in plans])
        self.push = np.where(bike, 1.2, np.where(heavy, 1.3, 2.0))
        self.brake = np.where(bike, 2.0, 2.5)
        self.headway = np.where(bike, 0.8, 1.3)
        self.gap = np.where(bike, 1.0, 2.0)
        lateral = np.where(bike, 1.8, np.where(heavy, 1.6, 2.3))
        self.limit = paths.speed_limit(lateral, 0.7 * self.brake)
        self.s = np.array([plan.start_m for plan in plans])
        self.v = np.minimum(np.array([plan.start_mps for plan in plans]), paths.lookup(self.limit, self.s))
        self.acceleration = np.zeros(len(plans))
        self.stopped_once = np.zeros(len(plans), dtype=bool)
        self.waited_s = np.zeros(len(plans))
        reach = np.minimum(paths.length_m, self.s + 30.0 + self.cruise * 12.0)
        self.zones = find_zones(paths, self.s, reach, self.width)
        self._cover(parked)

    def _cover(self, parked: Float) -> None:
        """Cover every body by discs along its axis; parked ones follow, owned by nobody (-1)."""
        count = np.maximum(np.ceil((self.length - self.width) / 1.8).astype(np.int64) + 1, 2)
        self.disc_owner = np.repeat(np.arange(len(count)), count)
        place = np.concatenate([np.linspace(-0.5, 0.5, number) for number in count])
        self.disc_offset = place * (self.length - self.width)[self.disc_owner]
        diameter = np.concatenate([self.width[self.disc_owner], parked[:, 2]])
        self.parked_m = parked[:, :2]
        self.owner = np.concatenate([self.disc_owner, np.full(len(parked), -1, dtype=np.int64)])
        self.disc_reach = 0.5 * (self.width[:, None] + diameter) + 0.25
        self.disc_reach[self.owner[None] == np.arange(len(count))[:, None]] = -1.0
        self.disc_radius = 0.5 * diameter

    def run(self, times_s: Float) -> tuple[Float, Float]:
        """Arc length (A, T) and speed (A, T) at the given times."""
        travelled, speed = np.zeros((2, len(self.plans), len(times_s)))
        for index, time in enumerate(times_s):
            travelled[:, index], speed[:, index] = self.s, self.v
            self._advance(index, float(time))
        return travelled, speed

    def _advance(self, index: int, time_s: float) -> None:
        if index % DECIDE_EVERY == 0:
            self.target = self._decide(index, time_s)
        # Comfortable when it grows, sudden when it must fall.
        change = np.clip(self.target - self.acceleration, -20.0 * self.step_s, 5.0 * self.step_s)
        self.acceleration = self.acceleration + change
        following = np.maximum(self.v + self.acceleration * self.step_s, 0.0)
        self.acceleration = np.where(following > 0.0, self.acceleration, np.maximum(self.acceleration, -0.5))
        self.s = self.s + 0.5 * (self.v + following) * self.step_s
        self.v = following
        self.waited_s = np.where(following < 0.25, self.waited_s + self.step_s, 0.0)

    def _decide(self, index: int, time_s: float) -> Float:
        """The acceleration (A,) each actor wants: the least of what every reason allows."""
        wish = np.minimum(self.cruise, self.paths.lookup(self.limit, self.s))
        free = self.push * (1 - (self.v / np.maximum(wish, 0.3)) ** 4)
        target = np.clip(free, -1.4 * self.brake, None)
        front = self.s + 0.5 * self.length
        way_s = front[:, None] + np.arange(0.0, LOOK_AHEAD_M, LOOK_STEP_M)
        way, way_heading = self.paths.pose(way_s)
        for allowed in (
            self._hold(time_s),
            self._stop_line(index, front),
            self._people(index, way),
            self._leaders(way, way_heading),
            self._right_of_way(index, front, wish),
        ):
            target = np.minimum(target, allowed)
        return np.asarray(np.clip(target, -7.5, None))

    def _idm(self, gap: Float, leader_mps: Float | float, standstill: Float | float) -> Float:
        """IDM's interaction: the acceleration that keeps from what is `gap` metres ahead; (A,) or (A, n) like `gap`."""
        column = (slice(None),) + (None,) * (gap.ndim - 1)
        v, push, headway = self.v[column], self.push[column], self.headway[column]
        closing = v * (v - leader_mps) / (2 * np.sqrt(push * self.brake[column]))
        wanted = standstill + np.maximum(0.0, v * headway * (np.asarray(leader_mps) > 0.05) + closing)
        ratio = wanted / np.maximum(gap, 0.1)
        return np.asarray(np.where(gap < FAR_M, push * (1 - ratio**2), np.inf))

    def _line(self, gap: Float) -> Float:
        """Acceleration (A,) that ends at a line `gap` metres ahead; infinite where it is too late to stop there."""
        needed = self.v**2 / (2 * np.maximum(gap, 0.1))
        possible = (gap > -0.3) & (needed < 5.0) & (gap < FAR_M)
        return np.where(possible, np.minimum(self._idm(np.maximum(gap, 0.05), 0.0, 0.5), self.push), np.inf)

    def _hold(self, time_s: float) -> Float:
        """The actor's own wish to stand still somewhere."""
        waiting = time_s < self.hold_until
        gap = np.where(waiting, self.hold - self.s + 0.5, np.inf)
        return np.where(gap > -1.0, self._line(np.maximum(gap, 0.05)), np.inf)

    def _stop_line(self, index: int, front: Float) -> Float:
        """Lights and stop signs."""
        gap = self.stop_at - front
        lit = self.signal >= 0
        state = self.signal_state[np.maximum(self.signal, 0), index] if self.signal_state.size else np.zeros(len(lit))
        easily = self.v**2 / (2 * np.maximum(gap, 0.1)) < 3.0
        closed = lit & ((state == STOP) | ((state == CAUTION) & easily))
        self.stopped_once |= self.must_stop & (gap < 2.5) & (self.v < 0.3)
        closed |= self.must_stop & ~self.stopped_once
        return self._line(np.where(closed & (gap > -0.5), gap, np.inf))

    def _people(self, index: int, way: Float) -> Float:
        """Pedestrians who are, or within three seconds will be, on the way ahead."""
        if not len(self.people_m):
            return np.full(len(self.s), np.inf)
        ahead = np.arange(0.0, PEOPLE_AHEAD_M, LOOK_STEP_M)
        soon = np.array([0, 10, 20, 30])
        steps = np.minimum(index + soon, self.people_m.shape[1] - 1)
        people = self.people_m[:, steps].reshape(-1, 2)
        close = _squared(way[:, : len(ahead)], people) < (0.5 * self.width[:, None, None] + 1.0) ** 2
        # Whoever is past before the pedestrian comes need not stop.
        arrival = ahead / np.maximum(self.v[:, None], 1.0)
        relevant = arrival[..., None] > np.tile(0.1 * soon - 1.8, len(self.people_m))
        hit = (close & relevant).any(axis=2)
        gap = np.where(hit.any(axis=1), ahead[hit.argmax(axis=1)] - 1.0, np.inf)
        return self._line(gap)

    def _leaders(self, way: Float, tangent: Float) -> Float:
        """Whatever stands or moves on the way ahead."""
        discs = np.concatenate(
            [self.paths.position(self.s[self.disc_owner] + self.disc_offset, self.disc_owner), self.parked_m]
        )
        close = _squared(way, discs) < np.where(self.disc_reach > 0.0, self.disc_reach**2, -1.0)[:, None]
        meets, first = close.any(axis=1), close.argmax(axis=1)
        rows = np.arange(len(self.s))[:, None]
        direction = np.stack([np.cos(tangent), np.sin(tangent)], axis=-1)[rows, first]
        # The sample is where the body first comes too close; its rear may be nearer or further along the way.
        along = ((discs - way[rows, first]) * direction).sum(axis=-1)
        gap = np.where(meets, LOOK_STEP_M * first + along - self.disc_radius, np.inf)
        heading = self.paths.heading(self.s)
        velocity = self.v[:, None] * np.stack([np.cos(heading), np.sin(heading)], axis=-1)
        velocity = np.concatenate([velocity[self.disc_owner], np.zeros_like(self.parked_m)])
        same_way = np.maximum((direction * velocity).sum(axis=-1), 0.0)
        return np.asarray(self._idm(gap, same_way, self.gap[:, None]).min(axis=1))

    def _right_of_way(self, index: int, front: Float, wish: Float) -> Float:
        """Who waits where two paths cross, and who falls in behind whom where they merge."""
        zones = self.zones
        rear = self.s - 0.5 * self.length
        to_zone = zones.enter_m - front[:, None]
        speed = np.maximum(self.v, 0.35 * wish + 0.5)
        # Finite stand-ins for "never", so that differences stay numbers.
        until_in = np.minimum(np.maximum(to_zone, 0.0) / speed[:, None], FAR_M)
        until_out = np.minimum(np.maximum(zones.leave_m - rear[:, None], 0.0) / speed[:, None], 2 * FAR_M)
        gap_to_stop = self.stop_at - front
        lit = self.signal >= 0
        red = np.zeros(len(self.s), dtype=bool)
        if self.signal_state.size:
            red = lit & (self.signal_state[np.maximum(self.signal, 0), index] == STOP) & (gap_to_stop > -0.5)
        waiting = (
            red | (self.must_stop & ~self.stopped_once & (gap_to_stop > -0.5)) | ((self.hold - self.s < 2.0) & (self.v < 0.2))
        )
        rank = self.priority + 10 * (self.ring & (gap_to_stop < 0.0))
        their_in, their_out, their_gap = until_in.T, until_out.T, to_zone.T
        before = (to_zone > -0.5) & np.isfinite(to_zone)
        occupied = (their_gap <= 0.0) & (rear[None] < zones.leave_m.T)
        coming = (their_gap > 0.0) & ~waiting[None]
        index_order = np.arange(len(self.s))
        first = (rank[None] > rank[:, None]) | (
            (rank[None] == rank[:, None])
            & (
                (their_in < until_in - 0.05)
                | ((np.abs(their_in - until_in) <= 0.05) & (index_order[None] < index_order[:, None]))
            )
        )
        in_the_way = (their_in < until_out + 1.3) & (their_out + 0.4 > until_in)
        yields = before & ~zones.merging & (occupied | (coming & first & in_the_way))
        # Two who wait for each other would wait for good: who has waited longer goes on among those who stand.
        longer = (self.waited_s[:, None] > PATIENCE_S) & (self.v[None] < 0.2)
        longer &= occupied | (self.waited_s[:, None] > self.waited_s[None])
        yields &= ~longer
        stop_gap = np.where(yields, to_zone - 0.8, np.inf).min(axis=1)
        crossing = self._line(np.maximum(stop_gap, -0.2))
        behind = before & zones.merging & coming & first & (their_in < until_in + 3.0) & (to_zone < 40.0)
        merge_gap = np.where(behind, to_zone - np.where(behind, their_gap, 0.0) - self.length[None], np.inf)
        # A gap that is not there yet is opened gently, not with an emergency stop.
        merging = self._idm(np.maximum(merge_gap, 1.5), self.v[None], self.gap[:, None]).min(axis=1)
        return np.asarray(np.minimum(crossing, np.maximum(merging, -2.5)))


def _squared(way: Float, points: Float) -> Float:
    """(A, K, n) squared distances between points (A, K, 2) and (n, 2)."""
    return np.asarray((way**2).sum(axis=-1)[..., None] + (points**2).sum(axis=-1) - 2 * way @ points.T)
