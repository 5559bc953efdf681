"""`limtr submit`: a file of predictions as a submission to Waymo's motion challenges, and `--check` for one that exists."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from evaluation.predictions import read_metadata, read_predictions
from evaluation.scene_input import open_scenes
from evaluation.submission import SubmissionInfo, parameters_text, scenario_messages, write_archive
from evaluation.submission_check import check_submission
from evaluation.submission_targets import Challenge, ScenarioTargets, targets_of
from limtr.predictor import MotionPredictor
from limtr.run_report import write_report

MOST_SHOWN = 4
_INFO = "--account-name, --method-name, and --checkpoint or both of --uses-lidar and --num-parameters"


@dataclass(frozen=True, kw_only=True)
class SubmitConfig:
    """Options of `limtr submit`: give --predictions to make a submission, or --check to look at one."""

    predictions: Path | None = None
    """Parquet file of predictions, as `limtr predict` writes it."""
    check: Path | None = None
    """Submission (.tar.gz) to look at; nothing is written."""
    data: Path | None = None
    """The scenarios of the split (shards, a TFRecord file or a folder of them): what must be predicted."""
    split: str = "test"
    """Split to read of --data where it has several."""
    challenge: Challenge = "motion"
    """motion: each object alone. interaction: pairs, as the six best products of the modes predicted of each alone."""
    out: Path | None = None
    """Archive to write [default: beside the predictions, as NAME-CHALLENGE.tar.gz]."""
    account_name: str = ""
    """Full e-mail address of your account at waymo.com/open."""
    method_name: str = ""
    """Short unique name of the method on the leaderboard."""
    authors: tuple[str, ...] = ()
    """Names of the authors."""
    affiliation: str = ""
    """Where they work."""
    description: str = ""
    """What the method is, in a sentence."""
    method_link: str = ""
    """Link to a paper or a page."""
    checkpoint: Path | None = None
    """The model that predicted: gives the number of parameters, and whether LiDAR was read."""
    uses_lidar: bool | None = None
    """Whether the method reads the dataset's LiDAR [default: as --checkpoint]."""
    uses_camera: bool = False
    """Whether the method reads the dataset's camera data."""
    num_parameters: str = ""
    """Number of the model's parameters, such as 64M [default: as --checkpoint]."""
    public_models: tuple[str, ...] = ()
    """Public models that the method was pre-trained from."""
    scenarios_per_shard: int = 5000
    """Scenarios in each message of the archive."""

    def __post_init__(self) -> None:
        """Validate."""
        if (self.predictions is None) == (self.check is None):
            raise ValueError("give either --predictions (to make a submission) or --check (to look at one)")
        if self.scenarios_per_shard < 1:
            raise ValueError(f"--scenarios-per-shard must be at least 1, is {self.scenarios_per_shard}")
        if self.predictions is None:
            return
        if self.challenge == "interaction" and self.data is None:
            raise ValueError("--challenge interaction needs --data: the records say which two objects interact")
        from_model = self.checkpoint is not None or (self.uses_lidar is not None and self.num_parameters)
        if not (self.account_name and self.method_name and from_model):
            raise ValueError(f"the server requires {_INFO}")

    @property
    def archive(self) -> Path:
        """Where the submission goes."""
        assert self.predictions is not None
        return self.out or self.predictions.with_name(f"{self.predictions.stem}-{self.challenge}.tar.gz")


def run(config: SubmitConfig) -> int:
    """Make a submission and look at it, or look at one; 0 only if the server would take it."""
    problems: list[str] = []
    targets = _targets(config, problems)
    if config.check is not None:
        return 1 if _report_check(config.check, targets, problems) else 0
    assert config.predictions is not None
    info = submission_info(config)
    predictions = read_predictions(config.predictions, on_error=lambda error: problems.append(str(error)))
    messages = scenario_messages(predictions, config.challenge, targets, problems)
    try:
        number = write_archive(config.archive, messages, info, config.challenge, scenarios_per_shard=config.scenarios_per_shard)
    except ValueError as error:
        raise ValueError("; ".join([str(error), *problems[:MOST_SHOWN]])) from error
    print(f"{number} scenarios in {config.archive} ({config.archive.stat().st_size / 1e6:.1f} MB)")
    found = _report_check(config.archive, targets, problems)
    results = {"scenarios": number, "info": info, "file_metadata": read_metadata(config.predictions), "problems": found}
    inputs = [path for path in (config.predictions, config.data, config.checkpoint) if path is not None]
    folder = config.archive.with_name(f"{config.archive.name}.report")
    write_report(folder, verb="submit", inputs=inputs, config=config, seed=None, results=results)
    return 1 if found else 0


def _targets(config: SubmitConfig, problems: list[str]) -> dict[str, ScenarioTargets] | None:
    if config.data is None:
        return None
    scenes, _ = open_scenes(config.data, config.split, None, with_lidar=False, report=problems.append)
    return targets_of(scenes)


def submission_info(config: SubmitConfig) -> SubmissionInfo:
    """What the submission says of itself; options win over what the checkpoint says.

    Raises:
        ValueError: the checkpoint is not the model that made the predictions.
    """
    uses_lidar, parameters = config.uses_lidar, config.num_parameters
    if config.checkpoint is not None:
        assert config.predictions is not None
        model = MotionPredictor.load(config.checkpoint)
        of_file = read_metadata(config.predictions).get("model_fingerprint", "")
        if of_file and of_file != model.fingerprint():
            raise ValueError(
                f"{config.predictions} was made by model {of_file}, --checkpoint {config.checkpoint} is {model.fingerprint()}; "
                "give the checkpoint that predicted"
            )
        uses_lidar = model.config.view.use_lidar if uses_lidar is None else uses_lidar
        parameters = parameters or parameters_text(sum(weight.numel() for weight in model.parameters()))
    assert uses_lidar is not None
    return SubmissionInfo(
        account_name=config.account_name, unique_method_name=config.method_name, authors=config.authors,
        affiliation=config.affiliation, description=config.description, method_link=config.method_link,
        uses_lidar_data=uses_lidar, uses_camera_data=config.uses_camera, num_model_parameters=parameters,
        public_model_names=config.public_models,
    )  # fmt: skip


def _report_check(path: Path, targets: dict[str, ScenarioTargets] | None, problems: list[str]) -> list[str]:
    """Look at an archive, print what is wrong, with what was wrong before; returns that."""
    check = check_submission(path, targets)
    found = [*problems, *check.problems.rejected]
    for problem in found:
        print(f"limtr submit: {problem}", file=sys.stderr)
    for remark in check.problems.remarks:
        print(f"remark: {remark}")
    if targets is None:
        print("ids were not compared with the records: give --data to have that done")
    verdict = f"{len(found)} problem(s)" if found else "nothing that the server would reject"
    print(
        f"{path}: {check.challenge} challenge, {check.num_files} file(s), {len(check.scenario_ids)} scenarios, "
        f"{check.num_objects} objects: {verdict}"
    )
    return found
