"""The random generators of all ranks in one checkpoint, so that each goes on with its own."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from training.checkpoint import restore_random_state

RandomState = tuple[dict[str, torch.Tensor], dict[str, Any]]
"""What `capture_random_state` gives: tensors and plain values."""


def joined_states(states: Sequence[RandomState]) -> RandomState:
    """The states of all ranks as one: the first rank's as it is alone, the others' under `rank1/` and so on."""
    tensors, plain = dict(states[0][0]), dict(states[0][1])
    for rank, (own_tensors, own_plain) in enumerate(states[1:], start=1):
        tensors |= {f"rank{rank}/{name}": value for name, value in own_tensors.items()}
        plain.setdefault("ranks", []).append(own_plain)
    return tensors, plain


def restore_rank(tensors: Mapping[str, torch.Tensor], plain: Mapping[str, Any], *, rank: int, count: int, seed: int) -> None:
    """Put back the generators of one rank.

    In a group of another size than the checkpoint's, the first rank goes on with its generators and the others begin anew.
    """
    saved = 1 + len(plain.get("ranks", []))
    if saved != count and rank == 0:
        warnings.warn(
            f"the checkpoint was made by {saved} process(es) and {count} go on: the order of the scenes stays what it was, but"
            " what dropout and --drop-map draw will differ",
            stacklevel=2,
        )
    if rank == 0:
        own = {name: value for name, value in tensors.items() if name.startswith("random/")}
        restore_random_state(own, plain)
    elif saved == count:
        prefix = f"rank{rank}/"
        own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        restore_random_state(own, plain["ranks"][rank - 1])
    else:
        seed_rank(seed, rank)


def seed_rank(seed: int, rank: int) -> None:
    """Let a rank draw other numbers than the first, which goes on as a process alone would."""
    if rank > 0:
        torch.manual_seed(int(np.random.SeedSequence([seed, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1)))
