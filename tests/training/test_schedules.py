import pytest

from training.schedules import ScheduleName, learning_rate


@pytest.mark.parametrize(
    ("epoch", "factor"), [(0, 1.0), (21.99, 1.0), (22, 0.5), (24, 0.25), (26, 0.125), (28, 0.0625), (30, 0.0625)]
)
def test_mtr_halves_at_its_four_epochs(epoch: float, factor: float) -> None:
    assert learning_rate("mtr", 1e-4, epoch / 30) == pytest.approx(1e-4 * factor)


def test_mtr_never_falls_below_its_floor() -> None:
    assert learning_rate("mtr", 4e-6, 1.0) == 1e-6


@pytest.mark.parametrize(
    ("schedule", "share", "factor"),
    [
        ("warmup-linear", 0.0, 0.0),
        ("warmup-linear", 0.025, 0.5),
        ("warmup-linear", 0.05, 1.0),
        ("warmup-linear", 0.525, 0.5),
        ("warmup-linear", 1.0, 0.0),
        ("cosine", 0.025, 0.5),
        ("cosine", 0.05, 1.0),
        ("cosine", 0.05 + 0.95 / 3, 0.75),
        ("cosine", 0.525, 0.5),
        ("cosine", 1.0, 0.0),
        ("cosine", 1.7, 0.0),
    ],
)
def test_warmed_up_schedules_rise_and_fall(schedule: ScheduleName, share: float, factor: float) -> None:
    assert learning_rate(schedule, 2.0, share) == pytest.approx(2.0 * factor, abs=1e-12)
