"""What a run is known by: everything that its result depends on, and nothing else."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evaluation.comparison.runs import FINISHED_FILE, EvaluationPlan, Run, differences, plan_runs, slug
from evaluation.comparison.variants import Variant
from evaluation.scene_scores import FILE
from limtr.files import write_json
from limtr.predictor import MotionPredictor
from tests.evaluation.comparison.made_runs import made_data
from tests.training.small import small_config

PLAN = EvaluationPlan(split="validation", bucketing="2024")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_data(tmp_path_factory.mktemp("data") / "shards")


def planned(data: Path, options: Mapping[str, Any] | None = None, plan: EvaluationPlan = PLAN, **given: Any) -> Run:
    variant = Variant(name=given.get("name", "one"), file=Path("one.yaml"), data=data, options=options or {"steps": 4})
    (run,) = plan_runs([variant], [given.get("seed", 0)], plan, Path("out"), threads=given.get("threads", 1))
    return run


@pytest.mark.parametrize(
    "given",
    [{"seed": 1}, {"threads": 2}, {"name": "two"}, {"options": {"steps": 5}}, {"options": {"steps": 4, "lidar": False}},
     {"options": {"steps": 4, "device": "cpu"}}, {"options": {"steps": 4, "num_workers": 2}},
     {"options": {"steps": 4, "sparsity": {"method": "static", "density": 0.5}}}],
    ids=["seed", "threads", "name", "steps", "lidar", "device", "ranks", "sparsity"],
)  # fmt: skip
def test_what_changes_a_training_changes_its_folder(data: Path, given: dict[str, Any]) -> None:
    assert planned(data, **given).folder != planned(data).folder


@pytest.mark.parametrize(
    "options", [{"workers": 1}, {"cache_gib": 1.0}, {"licence": "mine"}, {"checkpoint_every_s": 5.0}, {"batch_size": 2}]
)
def test_what_changes_no_result_and_what_the_preset_says_anyway_do_not(data: Path, options: dict[str, Any]) -> None:
    assert planned(data, {"steps": 4, **options}).folder == planned(data).folder


def test_of_the_weights_to_start_from_the_content_counts(data: Path, tmp_path: Path) -> None:
    starts = [tmp_path / name for name in ("a", "b", "c")]
    for start, content in zip(starts, (b"1", b"1", b"2"), strict=True):
        start.write_bytes(content)
    first, same, other = (planned(data, {"steps": 4, "init_from": str(start)}).folder for start in starts)
    assert first == same
    assert first != other
    assert first != planned(data).folder


def test_other_data_are_another_training_and_the_same_data_elsewhere_are_not(data: Path, tmp_path: Path) -> None:
    moved = made_data(tmp_path / "moved")
    assert planned(moved).folder == planned(data).folder
    (moved / "intentions.json").write_text((moved / "intentions.json").read_text() + "\n")
    assert planned(moved).folder != planned(data).folder


@pytest.mark.parametrize(
    "plan",
    [replace(PLAN, split="train"), replace(PLAN, bucketing="2021"), replace(PLAN, words=("--corrupt", "lidar-fog"))],
    ids=["split", "bucketing", "corruptions"],
)
def test_another_evaluation_has_a_folder_of_its_own_in_the_same_training(data: Path, plan: EvaluationPlan) -> None:
    run, other = planned(data), planned(data, plan=plan)
    assert other.training == run.training
    assert other.evaluation != run.evaluation
    assert other.evaluation.parent == run.folder


def test_the_commands_do_what_the_run_is_known_by(data: Path) -> None:
    run = planned(data, plan=EvaluationPlan(split="train", bucketing="2021", words=("--corrupt", "lidar-fog")), seed=3)
    assert " ".join(run.train_words) == f"--data {data} --steps 4 --seed 3 --keep 1"
    assert " ".join(run.evaluate_words) == f"--data {data} --split train --bucketing 2021 --corrupt lidar-fog"


def test_names_that_look_alike_in_a_path_do_not_share_a_folder(data: Path) -> None:
    assert planned(data, name="a b").folder != planned(data, name="a-b").folder


def test_runs_come_seed_by_seed(data: Path) -> None:
    variants = [Variant(name=name, file=Path("x.yaml"), data=data, options={"steps": 4}) for name in ("one", "two")]
    runs = plan_runs(variants, (0, 4), PLAN, Path("out"), threads=1)
    assert [run.name for run in runs] == ["one, seed 0", "two, seed 0", "one, seed 4", "two, seed 4"]
    assert len({run.folder for run in runs}) == 4


@pytest.mark.parametrize("changed", ["settings", "evaluation"])
def test_a_result_of_other_settings_is_refused(data: Path, tmp_path: Path, changed: str) -> None:
    run = replace(planned(data), folder=tmp_path / "run")
    content: dict[str, Any] = {"settings": dict(run.settings), "evaluation": dict(run.evaluation_settings)}
    assert run.finished() is None
    write_json(run.evaluation / FINISHED_FILE, content)
    assert run.finished() is None  # its scores are gone
    (run.evaluation / FILE).write_bytes(b"")
    assert run.finished() is None  # its model is gone
    MotionPredictor(small_config()).save(run.training)
    assert run.finished() == content
    write_json(run.evaluation / FINISHED_FILE, {**content, changed: {**content[changed], "seed": 9}})
    with pytest.raises(ValueError, match=f"{FINISHED_FILE} holds the result of other settings; remove .*run"):
        run.finished()


def test_changes_are_told_with_their_place() -> None:
    before = {"recipe": {"steps": 4, "lidar": True}, "data": "a"}
    assert differences(before, {"recipe": {"steps": 6, "lidar": True}, "data": "a"}) == ["recipe.steps: 4 before, 6 now"]
    assert differences(before, {"recipe": {"steps": 4}, "data": "b"}) == [
        "data: a before, b now",
        "recipe.lidar: True before, None now",
    ]


@pytest.mark.parametrize(
    ("name", "told"), [("../../x", "x"), ("Tiny LiMTR", "tiny-limtr"), ("中文", "variant"), ("a/b\\c", "a-b-c")]
)
def test_a_name_leads_to_no_other_folder(name: str, told: str) -> None:
    assert slug(name) == told
