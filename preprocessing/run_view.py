"""What a run of `limtr preprocess` has done so far, in one line."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from preprocessing.preprocess_task import ShardFailure, ShardResult


@dataclass
class RunView:
    """Counts of a run."""

    results: list[ShardResult] = field(default_factory=list)
    failures: list[ShardFailure] = field(default_factory=list)
    start: float = field(default_factory=time.monotonic)
    cluster: str = ""
    """Where the work is done just now, as a sentence."""

    @property
    def scenes(self) -> int:
        """Scenes in the shards of this run."""
        return sum(result.rows for result in self.results)

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self.start

    @property
    def peak_memory_bytes(self) -> int:
        """Of the largest worker; 0 before the first shard."""
        return max((result.peak_memory_bytes for result in self.results), default=0)

    def note(self) -> str:
        """For the progress display, beside the shards done and the time left."""
        parts = [
            f"{self.scenes} scenes, {self.scenes / max(self.seconds, 1e-9):.1f} scenes/s",
            f"{sum(result.bad for result in self.results)} quarantined",
        ]
        if self.failures:
            parts.append(f"{len(self.failures)} shards failed")
        return ", ".join(parts) + (f"; {self.cluster}" if self.cluster else "")

    def summary(self) -> dict[str, Any]:
        """For report.json."""
        return {
            "shards_made": len(self.results),
            "shards_failed": [
                {"source": str(item.task.source), "error": item.error, "details": item.details} for item in self.failures
            ],
            "shards_by_machine": dict(sorted(Counter(result.node for result in self.results).items())),
            "peak_worker_memory_bytes": self.peak_memory_bytes,
            "scenes": self.scenes,
            "worker_seconds": round(sum(result.seconds for result in self.results), 2),
            "seconds": round(self.seconds, 2),
        }
