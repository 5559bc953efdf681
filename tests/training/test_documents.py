"""README.md, docs/training.md and the demo's last words: their Python runs, and their commands are commands."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
import tyro

from limtr import cli
from limtr.demo import DemoConfig, print_summary
from limtr.prediction import ScenePrediction
from limtr.predictor import MotionPredictor
from tests.builders import tiny_scene
from tests.evaluation.examples import write_dataset
from tests.training.small import small_config

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "docs/training.md", "docs/evaluation.md", "docs/simulator.md", "docs/data.md", "docs/scale.md",
             "docs/deployment.md", "docs/results.md")  # fmt: skip


@pytest.mark.parametrize("name", ["README.md", "docs/training.md"])
def test_the_python_of_a_document_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), flags=re.DOTALL))
    MotionPredictor(small_config()).save(tmp_path / "RUN")
    for folder in ("DATA", "DIR"):
        if f'"{folder}"' in code:
            write_dataset(tmp_path / folder, {"validation": [tiny_scene(0)]})
    monkeypatch.chdir(tmp_path)
    found: dict[str, object] = {}
    exec(code, found)
    prediction = found["prediction"]
    assert isinstance(prediction, ScenePrediction)
    assert prediction.xy_m.shape == (3, 6, 80, 2)
    assert prediction.scores.shape == (3, 6)


def parse(command: str) -> None:
    """Fail if a command line is none: unknown verb, option or value."""
    words = shlex.split(command, comments=True)[1:]
    name = " ".join(words[:2]) if " ".join(words[:2]) in cli.VERBS else words[0]
    verb = cli.VERBS[name]
    config = getattr(importlib.import_module(verb.module), verb.config)
    assert isinstance(tyro.cli(config, args=words[len(name.split()) :]), config)


def commands(text: str) -> list[str]:
    blocks = re.findall(r"```\n(.*?)```", text, flags=re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    # "tiny|mtr|limtr" names choices and "..." leaves something out: neither is meant to be typed as it stands.
    return [
        line
        for line in lines
        if line.startswith("limtr ") and "|" not in line.split("#")[0] and not re.search(" \\.\\.\\.|─", line)
    ]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_commands_of_a_document_are_commands(name: str) -> None:
    for command in commands((ROOT / name).read_text()):
        parse(command)


def test_the_readme_shows_commands() -> None:
    shown = {command.split()[1] for command in commands((ROOT / "README.md").read_text())}
    assert {"preprocess", "intentions", "train", "evaluate", "predict", "tune-nms", "synthesize"} <= shown


def test_what_the_demo_says_to_type_next_can_be_typed(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(DemoConfig(quick=True), [("train", 1.0)], 1.0)
    hints = [line.strip() for line in capsys.readouterr().out.splitlines() if re.match(r" +\S*limtr ", line)]
    assert len(hints) >= 4
    for hint in hints:
        parse(hint)
