"""docs/architecture.md says where a line of code lives, so it must name every file there is, and no other."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("limtr", "preprocessing", "training", "evaluation", "sparse_core")


def test_the_document_names_every_file_and_no_other() -> None:
    named = set(re.findall(r"^\| `([a-z_/0-9]+\.py)` \|", (ROOT / "docs" / "architecture.md").read_text(), flags=re.MULTILINE))
    files = {str(file.relative_to(ROOT)) for room in ROOMS for file in (ROOT / room).rglob("*.py")}
    assert named == {file for file in files if not file.endswith("__init__.py")}
