"""`limtr verify --official`: files that we read and write, read by Waymo's own decoders and protos too (`make oracle`)."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tyro.conf import Positional

from evaluation.oracle import ask_oracle
from evaluation.submission_archive import read_messages
from evaluation.submission_problems import Problems
from limtr.conformance import Comparison, print_comparisons
from limtr.files import read_json
from preprocessing.verify_files import Arrays
from preprocessing.verify_lidar import compare_points
from preprocessing.womd import schema
from preprocessing.womd.lidar import LASER_NAMES, open_frame
from preprocessing.womd.tfrecord import iter_records, write_records

_IMAGE = re.compile(r"f(?P<frame>\d+)_l(?P<laser>\d+)_image(?P<echo>[12])")
IMAGE_TOLERANCE = 1e-9
"""Both sides multiply the same whole numbers with the same precisions in float64."""

TOP_ROUNDINGS = 6
"""float32 roundings of a world coordinate on the way there and back: rotations, translations, products and sums."""
MIN_TOP_TOLERANCE_M = 1e-4


@dataclass(frozen=True, kw_only=True)
class VerifyOfficialConfig:
    """Options of `limtr verify --official`."""

    files: Positional[tuple[Path, ...]]
    """TFRecord files of scenarios, with laser frames or without, or submissions (.tar.gz, .tgz)."""
    records: int = 4
    """How many records of each TFRecord file to look at."""

    def __post_init__(self) -> None:
        """Validate."""
        if not self.files or self.records < 1:
            raise ValueError("give at least one file, and --records of at least 1")


def run(config: VerifyOfficialConfig) -> int:
    """Print every compared quantity; 0 only if all agree."""
    return print_comparisons([item for file in config.files for item in compare_file(file, config.records)])


def compare_file(path: Path, records: int) -> Iterator[Comparison]:
    """Protos of a file, and LiDAR where it has some.

    Raises:
        OracleError: the oracle environment cannot be used, or Waymo's code failed on the file.
        ValueError: the file is broken.
    """
    if path.name.endswith((".tar.gz", ".tgz")):
        problems = Problems()
        messages = [message.SerializeToString() for _, message in read_messages(path, problems)]
        if problems.rejected or not messages:
            raise ValueError(f"{path}: {'; '.join(problems.rejected) or 'no messages'}; see `limtr submit --check {path}`")
        yield from compare_protos(messages, "MotionChallengeSubmission", path.name)
        return
    data = [record for _, record in islice(iter_records(path), records)]
    yield from compare_protos(data, "Scenario", path.name)
    if any(schema.Scenario.FromString(record).compressed_frame_laser_data for record in data):
        yield from compare_lidar(data, path)


def compare_protos(messages: Sequence[bytes], kind: str, title: str) -> Iterator[Comparison]:
    """Messages that our schema parses and writes, parsed and written by Waymo's protos, and back.

    Args:
        messages: serialized, by whomever.
        kind: `Scenario` or `MotionChallengeSubmission`.
        title: what they are called in the output.
    """
    parse = getattr(schema, kind).FromString
    ours = [parse(data) for data in messages]
    with tempfile.TemporaryDirectory(prefix="limtr-official-") as folder:
        source, target, findings = (Path(folder) / name for name in (f"{kind}.tfrecord", "official.tfrecord", "found.json"))
        pairs = zip(messages, ours, strict=True)
        write_records(source, (data for item, message in pairs for data in (item, message.SerializeToString())))
        ask_oracle("read_protos.py", source, target, findings)
        official = [parse(data) for _, data in iter_records(target)]
        found = read_json(findings)
    for index, (message, back, seen) in enumerate(zip(ours, official, found, strict=True)):
        name = f"{title} {kind} {index}"
        known = parse(messages[index])
        known.DiscardUnknownFields()
        unknown = message.ByteSize() - known.ByteSize()
        yield Comparison(name=f"{name}: bytes unknown to Waymo's protos", difference=seen["unknown_bytes"], tolerance=0)
        yield Comparison(name=f"{name}: bytes unknown to ours", difference=unknown, tolerance=0)
        yield Comparison(
            name=f"{name}: ours read by Waymo's protos", difference=0 if seen["equal"] else math.inf, tolerance=0,
            note=f"{message.ByteSize()} bytes",
        )  # fmt: skip
        same = back.SerializeToString(deterministic=True) == message.SerializeToString(deterministic=True)
        yield Comparison(name=f"{name}: Waymo's read by ours", difference=0 if same else math.inf, tolerance=0)


def compare_lidar(records: Sequence[bytes], path: Path) -> Iterator[Comparison]:
    """Range images and points of all laser frames, by Waymo's decoder and by ours."""
    with tempfile.TemporaryDirectory(prefix="limtr-official-") as folder:
        source, target = Path(folder) / "scenarios.tfrecord", Path(folder) / "points.npz"
        write_records(source, records)
        ask_oracle("decode_lidar.py", source, target)
        with np.load(target, allow_pickle=False) as archive:
            arrays: Arrays = {name: archive[name] for name in archive.files}
    for index, data in enumerate(records):
        scenario = schema.Scenario.FromString(data)
        if not scenario.compressed_frame_laser_data:
            continue
        own = {name.partition("/")[2]: array for name, array in arrays.items() if name.startswith(f"{index}/")}
        images = {name: array for name, array in own.items() if _IMAGE.fullmatch(name)}
        title = f"{path.name} {index}"
        for item in _compare_images(images, scenario):
            yield _titled(item, title)
        points = {name: array for name, array in own.items() if name not in images}
        for item in compare_points(points, Path("Waymo's decoder"), scenario, path, top_tolerance_m(scenario)):
            yield _titled(item, title)


def top_tolerance_m(scenario: Any) -> float:
    """How far TOP points of Waymo's decoder may be off: it moves them to the world and back in float32."""
    poses = [np.array(frame.pose.transform).reshape(4, 4)[:3, 3] for frame in scenario.compressed_frame_laser_data]
    return MIN_TOP_TOLERANCE_M + TOP_ROUNDINGS * float(np.finfo(np.float32).eps) / 2 * float(max(map(np.linalg.norm, poses)))


def _titled(item: Comparison, title: str) -> Comparison:
    return Comparison(name=f"{title}: {item.name}", difference=item.difference, tolerance=item.tolerance, note=item.note)


def _compare_images(images: Arrays, scenario: Any) -> Iterator[Comparison]:
    """Decoded range images of both sides, (H, W, C)."""
    for frame, message in enumerate(scenario.compressed_frame_laser_data):
        for scan in open_frame(message):
            for echo, image in enumerate(scan.returns, start=1):
                name = f"f{frame}_l{scan.name}_image{echo}"
                official = images.get(name)
                if image is None and official is None:
                    continue
                if image is None or official is None:
                    yield Comparison(name=name, difference=math.inf, tolerance=IMAGE_TOLERANCE, note="only one side has it")
                    continue
                ours = image.image()
                same = ours.shape == official.shape
                difference = float(np.abs(ours - official).max(initial=0.0)) if same else math.inf
                note = f"{LASER_NAMES.get(scan.name, scan.name)}, {' x '.join(map(str, official.shape))}"
                yield Comparison(name=name, difference=difference, tolerance=IMAGE_TOLERANCE, note=note)
