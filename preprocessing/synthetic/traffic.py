"""How vehicles and cyclists advance: IDM with lights, stop signs, right of way and pedestrians on their way.

IDM: Treiber, Hennecke and Helbing, "Congested traffic states in empirical observations and microscopic simulations", 2000.
"""

from __future__ import annotations

import numpy as np

from preprocessing.synthetic.conflicts import find_zones
from preprocessing.synthetic.paths import Paths
from preprocessing.synthetic.plans import Plan
from preprocessing.synthetic.world import BodyKind, Bool, Float, Int

LOOK_AHEAD_M = 45.0
LOOK_STEP_M = 1.5
STOP, CAUTION = 4, 5
FAR_M = 1e3


class Traffic:
    """A actors on fixed paths, advanced step by step; only their accelerations are decided on the way.

    Args:
        plans: of A vehicles and cyclists.
        paths: of the same actors.
        signal_state: (G, T) state of every light at the simulated steps.
        people_m: (P, T, 2) where pedestrians are at those steps; they do not react, so this is known.
        people_crossing: (P,) pedestrians whose path crosses a road.
        step_s: time step.
    """

    def __init__(
        self, plans: list[Plan], paths: Paths, signal_state: Int, people_m: Float, people_crossing: Bool, step_s: float
    ) -> None:
        self.plans, self.paths, self.step_s = plans, paths, step_s
        self.signal_state = signal_state
        self.people_m = people_m[people_crossing]
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
        self.parked = np.array([plan.parked for plan in plans])
        self.push = np.where(bike, 1.2, np.where(heavy, 1.3, 2.0))
        self.brake = np.where(bike, 2.0, 2.5)
        self.headway = np.where(bike, 0.8, 1.3)
        self.gap = np.where(bike, 1.0, 2.0)
        lateral = np.where(bike, 1.8, np.where(heavy, 1.6, 2.3))
        self.limit = paths.speed_limit(lateral, 0.7 * self.brake)
        self.s = np.array([plan.start_m for plan in plans])
        self.v = np.minimum(np.array([plan.start_mps for plan in plans]), paths.lookup(self.limit, self.s))
        self.v[self.parked] = 0.0
        self.acceleration = np.zeros(len(plans))
        self.stopped_once = np.zeros(len(plans), dtype=bool)
        self.zones = find_zones(paths, self.s, self.width)
        discs = np.array([-0.5, -0.25, 0.0, 0.25, 0.5])
        self.disc_offset = discs * (self.length - self.width)[:, None]

    def run(self, times_s: Float) -> tuple[Float, Float]:
        """Arc length (A, T) and speed (A, T) at the given times."""
        travelled, speed = np.zeros((2, len(self.plans), len(times_s)))
        for index, time in enumerate(times_s):
            travelled[:, index], speed[:, index] = self.s, self.v
            self._advance(index, float(time))
        return travelled, speed

    def _advance(self, index: int, time_s: float) -> None:
        wish = np.minimum(self.cruise, self.paths.lookup(self.limit, self.s))
        free = self.push * (1 - (self.v / np.maximum(wish, 0.3)) ** 4)
        target = np.clip(free, -1.4 * self.brake, None)
        front = self.s + 0.5 * self.length
        target = np.minimum(target, self._hold(time_s))
        target = np.minimum(target, self._stop_line(index, front))
        target = np.minimum(target, self._people(index, front))
        target = np.minimum(target, self._leaders(front))
        target = np.minimum(target, self._right_of_way(index, front, wish))
        # Comfortable when it grows, sudden when it must fall.
        change = np.clip(np.clip(target, -7.5, None) - self.acceleration, -20.0 * self.step_s, 5.0 * self.step_s)
        self.acceleration = np.where(self.parked, 0.0, self.acceleration + change)
        following = np.maximum(self.v + self.acceleration * self.step_s, 0.0)
        self.acceleration = np.where(following > 0.0, self.acceleration, np.maximum(self.acceleration, -0.5))
        self.s = self.s + 0.5 * (self.v + following) * self.step_s
        self.v = following

    def _idm(self, gap: Float, leader_mps: Float | float, standstill: Float | float) -> Float:
        """IDM's interaction: the acceleration (A,) that keeps from what is `gap` metres ahead."""
        closing = self.v * (self.v - leader_mps) / (2 * np.sqrt(self.push * self.brake))
        wanted = standstill + np.maximum(0.0, self.v * self.headway * (np.asarray(leader_mps) > 0.05) + closing)
        ratio = wanted / np.maximum(gap, 0.1)
        return np.asarray(np.where(gap < FAR_M, self.push * (1 - ratio**2), np.inf))

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

    def _people(self, index: int, front: Float) -> Float:
        """Pedestrians who are, or within three seconds will be, on the way ahead."""
        ahead = np.arange(0.0, 30.0, LOOK_STEP_M)
        if not len(self.people_m):
            return np.full(len(self.s), np.inf)
        way = self.paths.position(front[:, None] + ahead)
        soon = np.array([0, 10, 20, 30])
        steps = np.minimum(index + soon, self.people_m.shape[1] - 1)
        people = self.people_m[:, steps]
        apart = np.hypot(*np.moveaxis(way[:, :, None, None] - people, -1, 0))
        close = apart < 0.5 * self.width[:, None, None, None] + 0.9
        # Whoever is past before the pedestrian comes need not stop.
        arrival = ahead / np.maximum(self.v[:, None], 1.0)
        close &= arrival[:, :, None, None] > 0.1 * soon - 1.8
        hit = close.any(axis=(2, 3))
        gap = np.where(hit.any(axis=1), ahead[hit.argmax(axis=1)] - 1.0, np.inf)
        return self._line(gap)

    def _leaders(self, front: Float) -> Float:
        """Whatever stands or moves on the way ahead."""
        ahead = np.arange(0.0, LOOK_AHEAD_M, LOOK_STEP_M)
        way_s = front[:, None] + ahead
        way = self.paths.position(way_s)
        discs = self.paths.position(self.s[:, None] + self.disc_offset)
        reach = 0.5 * (self.width[:, None] + self.width) + 0.25
        squared = ((way[:, :, None, None] - discs) ** 2).sum(axis=-1)
        close = squared < (reach**2)[:, None, :, None]
        rows = np.arange(len(self.s))
        close[rows, :, rows] = False
        hit = close.any(axis=3)
        meets = hit.any(axis=1)
        first = hit.argmax(axis=1)
        tangent = self.paths.heading(way_s)
        direction = np.stack([np.cos(tangent), np.sin(tangent)], axis=-1)[rows[:, None], first]
        sample = way[rows[:, None], first]
        # How far along the way the nearest disc of the body really is.
        along = ((discs[None] - sample[:, :, None]) * direction[:, :, None]).sum(axis=-1).min(axis=-1)
        gap = np.where(meets, ahead[first] + along - 0.5 * self.width, np.inf)
        heading = self.paths.heading(self.s)
        velocity = self.v[:, None] * np.stack([np.cos(heading), np.sin(heading)], axis=-1)
        same_way = np.maximum((direction * velocity).sum(axis=-1), 0.0)
        idm = np.stack([self._idm(gap[:, other], same_way[:, other], self.gap) for other in rows], axis=1)
        return np.asarray(idm.min(axis=1))

    def _right_of_way(self, index: int, front: Float, wish: Float) -> Float:
        """Who waits where two paths cross, and who falls in behind whom where they merge."""
        zones = self.zones
        rear = self.s - 0.5 * self.length
        to_zone = zones.enter_m - front[:, None]
        speed = np.maximum(self.v, 0.35 * wish + 0.5)
        until_in = np.maximum(to_zone, 0.0) / speed[:, None]
        until_out = np.maximum(zones.leave_m - rear[:, None], 0.0) / speed[:, None]
        gap_to_stop = self.stop_at - front
        lit = self.signal >= 0
        red = np.zeros(len(self.s), dtype=bool)
        if self.signal_state.size:
            red = lit & (self.signal_state[np.maximum(self.signal, 0), index] == STOP) & (gap_to_stop > -0.5)
        waiting = (
            red | (self.must_stop & ~self.stopped_once & (gap_to_stop > -0.5)) | ((self.hold - self.s < 2.0) & (self.v < 0.2))
        )
        waiting |= self.parked
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
        stop_gap = np.where(yields, to_zone - 0.8, np.inf).min(axis=1)
        crossing = self._line(np.maximum(stop_gap, -0.2))
        behind = before & zones.merging & coming & first & (their_in < until_in + 3.0) & (to_zone < 40.0)
        merge_gap = np.where(behind, to_zone - their_gap - self.length[None], np.inf)
        # A gap that is not there yet is opened gently, not with an emergency stop.
        merging = np.stack(
            [self._idm(np.maximum(merge_gap[:, other], 1.5), self.v[other], self.gap) for other in index_order], axis=1
        ).min(axis=1)
        return np.minimum(crossing, np.maximum(merging, -2.5))
