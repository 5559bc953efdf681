"""Predictions as one Parquet file: a row per scenario, object and mode.

| column      | type          | meaning                                                                          |
|-------------|---------------|----------------------------------------------------------------------------------|
| scenario_id | string        | the record's scenario id; the rows of a scenario stand together                  |
| object_id   | int64         | the record's object id                                                           |
| mode        | int32         | 0 to K-1; every object of a scenario has the same K modes                        |
| score       | float64       | confidence, not negative; compared across objects, so it need not sum to one     |
| x, y        | list<float64> | 80 world positions in metres at 10 Hz, the first 0.1 s after the current step    |

The schema's metadata may name `limtr.model_fingerprint`, `limtr.licence` and `limtr.creator`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from limtr.files import atomic_path
from limtr.prediction import ScenePrediction
from limtr.scene import NUM_FUTURE_STEPS

FORMAT = "1"
COLUMNS = ("scenario_id", "object_id", "mode", "score", "x", "y")
ROWS_PER_GROUP = 4096
"""About 5 MB: what a reader holds at a time."""

Report = Callable[[ValueError], None]


class PredictionWriter:
    """Writes predictions: `with PredictionWriter(path) as writer: writer.write(prediction)`.

    The file appears under its name only when the block ends well. Its bytes depend on the predictions alone.

    Raises:
        ValueError: from `write`, for predictions that are not finite or have other than 80 steps, and for a scenario that was
            written before.
        OSError: as the file system says it; nothing is left behind.
    """

    def __init__(self, path: Path, *, fingerprint: str = "", licence: str = "", creator: str = "") -> None:
        self.path = path
        self.num_rows = 0
        self._metadata = {"limtr.format": FORMAT, "limtr.model_fingerprint": fingerprint, "limtr.licence": licence,
                          "limtr.creator": creator}  # fmt: skip
        self._seen: set[str] = set()
        self._waiting: list[Any] = []
        self._num_waiting = 0
        self._file: AbstractContextManager[Path] = atomic_path(path)
        self._writer: Any = None

    def __enter__(self) -> PredictionWriter:
        import pyarrow.parquet as pq

        temporary = self._file.__enter__()
        self._writer = pq.ParquetWriter(str(temporary), _schema().with_metadata(self._metadata), compression="zstd")
        return self

    def write(self, prediction: ScenePrediction) -> None:
        """Append the predictions of one scenario."""
        check_prediction(prediction, where=str(self.path))
        if prediction.scenario_id in self._seen:
            raise ValueError(
                f"{self.path}: scenario {prediction.scenario_id!r} was written before; every scenario may come once"
            )
        self._seen.add(prediction.scenario_id)
        table = _table(prediction)
        self._waiting.append(table)
        self._num_waiting += table.num_rows
        self.num_rows += table.num_rows
        if self._num_waiting >= ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting))
        self._waiting, self._num_waiting = [], 0

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                self._flush()
            self._writer.close()
        except BaseException as failure:
            if error is None:
                self._file.__exit__(type(failure), failure, failure.__traceback__)
                raise
        self._file.__exit__(kind, error, trace)


def check_prediction(prediction: ScenePrediction, *, where: str) -> None:
    """Check one scenario's predictions.

    Raises:
        ValueError: naming `where`, scenario, field and expectation.
    """
    objects, modes = prediction.scores.shape if prediction.scores.ndim == 2 else (-1, -1)
    problem = ""
    if prediction.object_id.shape != (objects,) or modes < 1:
        problem = f"field scores must have shape (objects, modes), has {prediction.scores.shape}"
    elif prediction.xy_m.shape != (objects, modes, NUM_FUTURE_STEPS, 2):
        problem = f"field xy_m must have shape {(objects, modes, NUM_FUTURE_STEPS, 2)}, has {prediction.xy_m.shape}"
    elif not np.isfinite(prediction.xy_m).all():
        finite = np.isfinite(prediction.xy_m).reshape(objects, -1)
        problem = f"positions of objects {_objects(prediction, finite)} are not finite"
    elif not (sound := np.isfinite(prediction.scores) & (prediction.scores >= 0)).all():
        problem = f"scores of objects {_objects(prediction, sound)} must be finite and not negative"
    elif len(set(prediction.object_id.tolist())) != objects:
        problem = "field object_id must name every object once"
    if problem:
        raise ValueError(f"{where}: scenario {prediction.scenario_id!r}: {problem}; predict that scenario again")


def _objects(prediction: ScenePrediction, sound: npt.NDArray[np.bool_]) -> list[int]:
    """Ids of the objects whose row of `sound` (objects, n) is not all true."""
    return [int(name) for name, row in zip(prediction.object_id, sound, strict=True) if not row.all()]


def _schema() -> Any:
    import pyarrow as pa

    path = pa.list_(pa.field("element", pa.float64(), nullable=False))
    kinds = (pa.string(), pa.int64(), pa.int32(), pa.float64(), path, path)
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in zip(COLUMNS, kinds, strict=True)])


def _table(prediction: ScenePrediction) -> Any:
    import pyarrow as pa

    objects, modes = prediction.scores.shape
    rows = objects * modes
    offsets = np.arange(rows + 1, dtype=np.int32) * NUM_FUTURE_STEPS
    schema = _schema()
    paths = [
        pa.ListArray.from_arrays(pa.array(offsets), pa.array(prediction.xy_m[..., axis].ravel()), type=schema.field(name).type)
        for axis, name in enumerate(("x", "y"))
    ]
    columns = [
        pa.array([prediction.scenario_id] * rows, pa.string()),
        pa.array(np.repeat(prediction.object_id, modes), pa.int64()),
        pa.array(np.tile(np.arange(modes), objects), pa.int32()),
        pa.array(prediction.scores.ravel(), pa.float64()),
        *paths,
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def read_metadata(path: Path) -> dict[str, str]:
    """What the file says of itself: the `limtr.` entries of its metadata, without the prefix.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no Parquet file of predictions.
    """
    with _open(path) as file:
        metadata: Mapping[bytes, bytes] = file.schema_arrow.metadata or {}
    own = {key.decode(): value.decode() for key, value in metadata.items() if key.startswith(b"limtr.")}
    return {key.removeprefix("limtr."): value for key, value in own.items()}


def read_predictions(path: Path, on_error: Report | None = None) -> Iterator[ScenePrediction]:
    """The predictions of one scenario after the other; a row group is held at a time.

    Args:
        path: a Parquet file as described above; rows of a scenario may be in any order, but stand together.
        on_error: gets the error of a bad scenario, which is then left out; without it the error is raised.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no Parquet file, columns are missing or of another type; or, without `on_error`, a scenario is bad:
            NaN, other than 80 steps, a mode twice or missing, rows that do not stand together.
    """
    with _open(path) as file:
        parted = _parted_scenarios(file)
        seen: set[str] = set()
        for scenario_id, rows in _scenarios(file):
            try:
                if scenario_id in parted:
                    if scenario_id in seen:
                        continue
                    seen.add(scenario_id)
                    raise ValueError(
                        f"{path}: rows of scenario {scenario_id!r} do not stand together; sort the file by scenario_id"
                    )
                prediction = _prediction(path, scenario_id, rows)
            except ValueError as error:
                if on_error is None:
                    raise
                on_error(error)
                continue
            yield prediction


def _open(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; make one with `limtr predict --out {path}`")
    try:
        file = pq.ParquetFile(str(path))
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: not a Parquet file ({error}); make one with `limtr predict`") from error
    schema = file.schema_arrow
    missing = [name for name in COLUMNS if name not in schema.names]
    if missing:
        raise ValueError(f"{path}: columns {missing} are missing; a file of predictions has {list(COLUMNS)}")
    text, number = schema.field("scenario_id").type, schema.field("score").type
    # Other writers keep repeated strings as a dictionary, or as views.
    text = text.value_type if pa.types.is_dictionary(text) else text
    fits = {
        "scenario_id": pa.types.is_string(text) or pa.types.is_large_string(text) or pa.types.is_string_view(text),
        **{name: pa.types.is_integer(schema.field(name).type) for name in ("object_id", "mode")},
        "score": pa.types.is_floating(number) or pa.types.is_integer(number),
    }
    for name in ("x", "y"):
        kind = schema.field(name).type
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
        fits[name] = is_list and pa.types.is_floating(kind.value_type)
    for name, good in fits.items():
        if not good:
            wanted = str(_schema().field(name).type)
            raise ValueError(f"{path}: column {name!r} must have type {wanted}, has {schema.field(name).type}")
    return file


def _parted_scenarios(file: Any) -> set[str]:
    """Ids of the scenarios whose rows do not stand together: the first part of such a scenario must not pass for the whole."""
    parted: set[str] = set()
    done: set[str] = set()
    current: str | None = None
    for batch in file.iter_batches(batch_size=ROWS_PER_GROUP, columns=["scenario_id"]):
        ids = batch.column("scenario_id").to_numpy(zero_copy_only=False)
        for start in np.flatnonzero(np.concatenate([[True], ids[1:] != ids[:-1]])) if len(ids) else ():
            scenario_id = str(ids[start])
            if scenario_id != current:
                parted |= {scenario_id} & done
                done.add(scenario_id)
                current = scenario_id
    return parted


def _scenarios(file: Any) -> Iterator[tuple[str, Any]]:
    """Runs of rows with one scenario id, across row groups."""
    import pyarrow as pa

    waiting: list[Any] = []
    current: str | None = None
    for batch in file.iter_batches(batch_size=ROWS_PER_GROUP, columns=list(COLUMNS)):
        ids = batch.column("scenario_id").to_numpy(zero_copy_only=False)
        if len(ids) == 0:
            continue
        starts = np.flatnonzero(np.concatenate([[True], ids[1:] != ids[:-1]]))
        for start, stop in zip(starts, [*starts[1:], len(ids)], strict=True):
            part = pa.Table.from_batches([batch.slice(start, stop - start)])
            if waiting and ids[start] != current:
                yield str(current), pa.concat_tables(waiting)
                waiting = []
            current = ids[start]
            waiting.append(part)
    if waiting:
        yield str(current), pa.concat_tables(waiting)


def _prediction(path: Path, scenario_id: str, rows: Any) -> ScenePrediction:
    """One scenario's rows as arrays, checked."""
    where = f"{path}: scenario {scenario_id!r}"
    empty = [name for name in COLUMNS if rows.column(name).null_count]
    if empty:
        raise ValueError(f"{where}: columns {empty} have empty values; fill them or leave the scenario out")
    object_id = rows.column("object_id").to_numpy().astype(np.int64)
    mode = rows.column("mode").to_numpy().astype(np.int64)
    objects = np.array(list(dict.fromkeys(object_id.tolist())), dtype=np.int64)
    position = {value: index for index, value in enumerate(objects.tolist())}
    num_modes = int(mode.max()) + 1
    pairs, times = np.unique(np.stack([object_id, mode], axis=1), axis=0, return_counts=True)
    if times.max() > 1:
        twice = pairs[times.argmax()].tolist()
        raise ValueError(f"{where}: object {twice[0]} has mode {twice[1]} twice; every mode may come once")
    if mode.min() != 0:
        raise ValueError(f"{where}: modes start at {mode.min()}; number the modes of every object from 0")
    if len(mode) != len(objects) * num_modes:
        raise ValueError(
            f"{where}: {len(objects)} objects need modes 0..{num_modes - 1} each ({len(objects) * num_modes} rows), has "
            f"{len(mode)} rows; every object of a scenario must have the same modes"
        )
    paths = []
    for name in ("x", "y"):
        lists: list[list[float | None]] = rows.column(name).to_pylist()
        wrong = [len(values) for values in lists if len(values) != NUM_FUTURE_STEPS]
        if wrong:
            raise ValueError(
                f"{where}: column {name!r} must hold {NUM_FUTURE_STEPS} positions (10 Hz), has one with {wrong[0]}"
            )
        paths.append(np.array(lists, dtype=np.float64))
    at = (np.array([position[value] for value in object_id.tolist()]), mode)
    xy = np.zeros((len(objects), num_modes, NUM_FUTURE_STEPS, 2))
    scores = np.zeros((len(objects), num_modes))
    xy[at] = np.stack(paths, axis=-1)
    scores[at] = rows.column("score").to_numpy().astype(np.float64)
    prediction = ScenePrediction(scenario_id=scenario_id, object_id=objects, xy_m=xy, scores=scores)
    check_prediction(prediction, where=str(path))
    return prediction


def write_predictions(path: Path, predictions: Iterable[ScenePrediction], **metadata: str) -> int:
    """Write a file of predictions; returns the number of rows. `metadata`: `fingerprint`, `licence`, `creator`."""
    with PredictionWriter(path, **metadata) as writer:
        for prediction in predictions:
            writer.write(prediction)
    return writer.num_rows
