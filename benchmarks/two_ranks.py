"""How far two ranks are from one process after 20 steps, and what joining them costs.

    python -m benchmarks.two_ranks

The trainings are those of tests/training/two_ranks.py: a small LiMTR on seven made scenes, whose batches the ranks share. The
differences are the largest of any step, relative to the value; the times are of whole trainings, two processes over one.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing

from tests.training.two_ranks import CASES, group, trained
from training.distributed import ALONE, Ranks


def timed(name: str, ranks: Ranks) -> dict[str, Any]:
    """A training and its seconds."""
    start = time.perf_counter()
    return {**trained(CASES[name], ranks), "seconds": time.perf_counter() - start}


def rank_main(rank: int, folder: str) -> None:
    """One of two ranks, on one thread."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with group(rank, 2, f"{folder}/meeting", 300.0) as ranks:
        found = {name: timed(name, ranks) for name in CASES}
    if rank == 0:
        torch.save(found, f"{folder}/found.pt")


def largest(ours: list[dict[str, float]], theirs: list[dict[str, float]], key: str) -> float:
    """Largest relative difference of a number over all steps."""
    return max(abs(a[key] - b[key]) / abs(b[key]) for a, b in zip(ours, theirs, strict=True))


def main() -> None:
    """Print a line for each training."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(rank_main, args=(folder,), nprocs=2, start_method="spawn")
        together = torch.load(Path(folder) / "found.pt", weights_only=True)
    print("| training | type | steps | loss | gradient norm | weights | masks | time |\n|---|---|---|---|---|---|---|---|")
    for name, case in CASES.items():
        alone, found = timed(name, ALONE), together[name]
        scale = max(float(value.abs().max()) for value in alone["weights"].values())
        weights = max(float((found["weights"][key] - value).abs().max()) for key, value in alone["weights"].items()) / scale
        same = all(torch.equal(mask, found["masks"][key]) for key, mask in alone["masks"].items())
        masks = "none" if case.method is None else "equal" if same else "differ"
        losses, norms = (largest(found["steps"], alone["steps"], key) for key in ("loss", "grad_norm"))
        ratio = found["seconds"] / alone["seconds"]
        kind = str(case.dtype).removeprefix("torch.")
        print(f"| {name} | {kind} | {case.steps} | {losses:.1e} | {norms:.1e} | {weights:.1e} | {masks} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
