"""The progress display says how much, how fast and how long, in units that a person reads."""

import pytest

from limtr.progress import duration_text, progress, rate_text


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (599, "599 s"), (600, "10 min"), (3599, "1 h 0 min"), (9 * 3600 + 61, "9 h 1 min")]
)
def test_durations_are_in_units_that_can_be_read(seconds: float, said: str) -> None:
    assert duration_text(seconds) == said


@pytest.mark.parametrize(("per_s", "said"), [(0.0, "0.0 shards/s"), (0.1, "0.1 shards/s"), (0.01, "36.0 shards/h")])
def test_slow_rates_are_by_the_hour(per_s: float, said: str) -> None:
    assert rate_text(per_s, "shards") == said


def test_a_log_ends_with_what_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("work", 2, "shards") as advance:
        advance(1)
        advance(1, note="all well")
        advance(0, note="a last look")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("work: 2/2 shards, ")
    assert line.endswith("0 s left, all well")
