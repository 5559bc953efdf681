import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from limtr.conformance import Comparison, print_comparisons
from limtr.progress import progress
from limtr.run_report import write_report
from limtr.scene import ObjectType


@dataclass(frozen=True)
class Options:
    where: Path
    kinds: tuple[ObjectType, ...]
    share: float


def test_the_report_names_inputs_versions_seed_and_configuration(tmp_path: Path) -> None:
    options = Options(where=Path("a/b"), kinds=(ObjectType.CYCLIST,), share=float("nan"))
    path = write_report(tmp_path, verb="try", inputs=[Path("x")], config=options, seed=3, results={"n": np.int64(2)})
    report = json.loads(path.read_text())
    assert report["config"] == {"where": "a/b", "kinds": ["CYCLIST"], "share": None}
    assert (report["verb"], report["inputs"], report["seed"], report["results"]) == ("try", ["x"], 3, {"n": 2})
    assert {"python", "torch", "numpy"} <= set(report["versions"])


@pytest.mark.parametrize(
    ("differences", "status"),
    [([0.0, 1e-7], 0), ([0.0, 1e-5], 1), ([float("nan")], 1), ([], 1)],
    ids=["ok", "off", "nan", "none"],
)
def test_conformance_needs_every_quantity_to_agree(
    differences: list[float], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    items = [Comparison(name=f"q{index}", difference=value, tolerance=1e-6) for index, value in enumerate(differences)]
    assert print_comparisons(items) == status
    assert ("FAIL" in capsys.readouterr().out) == bool(status)


def test_progress_tells_count_rate_and_what_was_left(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("reading", 3, "scenes") as advance:
        for _ in range(3):
            advance(1, "note")
    with progress("stopping", 3, "scenes") as advance:
        advance()
    with pytest.raises(KeyboardInterrupt), progress("breaking", 3, "scenes"):
        raise KeyboardInterrupt
    err = capsys.readouterr().err
    assert "reading: 3/3 scenes" in err
    assert "scenes/s" in err
    assert "note" in err
    assert "stopping: 1/3 scenes" in err
    assert "breaking: 0/3 scenes" in err
