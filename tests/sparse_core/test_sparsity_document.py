"""The code of docs/sparsity.md runs, in order, and says what it claims."""

import re
from pathlib import Path

import pytest

from sparse_core import method, presets, scores

PAGE = (Path(__file__).parents[2] / "docs" / "sparsity.md").read_text()


def test_the_code_of_the_page_runs_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    space: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/sparsity.md", "exec"), space)
    assert "after 15 updates in 400 steps" in capsys.readouterr().out
    assert len(blocks) >= 4


def test_the_page_names_every_preset_field_and_score() -> None:
    names = (
        "Static",
        "SET",
        "RigL",
        "ITOP",
        "SNFS",
        "MEST",
        "GMP",
        "GraNet",
        "SRigL",
        "DSR",
        "CHT",
        "CHTs",
        "TopKAST",
        "SRSTE",
    )
    for name in names:
        assert hasattr(presets, name)
        assert f"| `{name}(" in PAGE
    fields = {
        name for row in re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", PAGE, flags=re.MULTILINE) for name in re.findall(r"\w+", row)
    }
    assert fields >= set(method.Method.__dataclass_fields__)
    for name in ("signed_count", "taylor", "sensitivity", "reciprocal_sensitivity", "unfired", "momentum", "ema"):
        assert hasattr(scores, name)
        assert f"`{name}" in PAGE
