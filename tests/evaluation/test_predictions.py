"""The Parquet format of predictions: round trip, streaming, and what is refused."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import evaluation.predictions as format_module
from evaluation.predictions import PredictionWriter, read_metadata, read_predictions, write_predictions
from limtr.prediction import ScenePrediction


def prediction(name="a", objects=2, modes=3, seed=0):
    rng = np.random.default_rng(seed)
    return ScenePrediction(
        scenario_id=name,
        object_id=np.arange(objects) * 11 + 5,
        xy_m=rng.normal(size=(objects, modes, 80, 2)) * 1e4,
        scores=rng.random((objects, modes)),
    )


def same(first, second):
    assert first.scenario_id == second.scenario_id
    for name in ("object_id", "xy_m", "scores"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_what_is_written_is_read_to_the_last_digit_across_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(format_module, "ROWS_PER_GROUP", 7)
    path = tmp_path / "p.parquet"
    items = [prediction(f"s{index}", objects=1 + index % 3, modes=1 + index % 4, seed=index) for index in range(9)]
    rows = write_predictions(path, items, fingerprint="f00d", licence="terms", creator="test")
    assert pq.ParquetFile(path).num_row_groups > 1
    assert rows == pq.ParquetFile(path).metadata.num_rows == sum(item.scores.size for item in items)
    for first, second in zip(items, read_predictions(path), strict=True):
        same(first, second)
    assert read_metadata(path) == {"format": "1", "model_fingerprint": "f00d", "licence": "terms", "creator": "test"}


def test_equal_predictions_give_equal_files(tmp_path):
    for name in ("one", "two"):
        write_predictions(tmp_path / name, [prediction()])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_the_columns_are_those_that_the_description_names(tmp_path):
    path = tmp_path / "p.parquet"
    write_predictions(path, [prediction()])
    table = pq.read_table(path)
    kinds = {name: str(table.schema.field(name).type) for name in table.schema.names}
    assert {name: kinds[name] for name in ("scenario_id", "object_id", "mode", "score")} == {
        "scenario_id": "string", "object_id": "int64", "mode": "int32", "score": "double"}  # fmt: skip
    assert len(table.column("x")[0]) == len(table.column("y")[0]) == 80
    assert table.column("mode").to_pylist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("field", ["xy_m", "scores"])
def test_numbers_that_are_not_finite_are_not_written_and_leave_no_file(tmp_path, field):
    bad = prediction()
    getattr(bad, field)[1, 0] = np.nan
    with pytest.raises(ValueError, match=r"scenario 'a'.*16"), PredictionWriter(tmp_path / "p.parquet") as writer:
        writer.write(bad)
    assert list(tmp_path.iterdir()) == []


def test_a_scenario_is_written_once(tmp_path):
    with pytest.raises(ValueError, match=r"'a' was written before"):
        write_predictions(tmp_path / "p.parquet", [prediction(), prediction()])


def as_rows(tmp_path, change, name="p.parquet"):
    path = tmp_path / name
    write_predictions(path, [prediction("a"), prediction("b", seed=1)])
    rows = pq.read_table(path).to_pylist()
    rows = change(rows) or rows
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def set_value(index, **values):
    def change(rows):
        rows[index].update(values)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_value(0, x=[0.0] * 79), r"'a'.*'x'.*80.*79"),
        (set_value(0, y=[float("nan")] * 80), r"'a'.*objects \[5\].*finite"),
        (set_value(1, score=float("inf")), r"'a'.*scores of objects \[5\]"),
        (set_value(1, score=-0.5), r"'a'.*not negative"),
        (set_value(1, mode=0), r"'a'.*object 5 has mode 0 twice"),
        (set_value(2, mode=7), r"'a'.*modes 0\.\.7"),
        (lambda rows: rows[1:], r"'a'.*same modes"),
        (lambda rows: [row | {"mode": row["mode"] + (row["scenario_id"] == "a")} for row in rows], r"'a'.*start at 1.*from 0"),
        (set_value(3, object_id=None), r"'a'.*\['object_id'\].*empty"),
        (lambda rows: rows[3:] + rows[:3], r"'a' do not stand together"),
        (lambda rows: rows[:3] + rows[6:] + rows[3:6], r"'a' do not stand together"),
    ],
    ids=["wrong length", "NaN", "infinite score", "negative score", "mode twice", "mode out of range", "ragged modes",
         "modes from one", "empty value", "parted at the ends", "parted"],
)  # fmt: skip
def test_a_bad_scenario_is_named_and_its_neighbour_is_read(tmp_path, change, message):
    path = as_rows(tmp_path, change)
    errors = []
    read = [item.scenario_id for item in read_predictions(path, on_error=errors.append)]
    # Nothing of a bad scenario is read: not what stands before the fault either.
    assert read == ["b"]
    assert len(errors) == 1
    with pytest.raises(ValueError, match=message):
        list(read_predictions(path))
    assert str(path) in str(errors[0])


def test_rows_of_a_scenario_may_come_in_any_order(tmp_path):
    path = as_rows(tmp_path, lambda rows: rows[2::-1] + rows[3:])
    same(next(read_predictions(path)), prediction("a"))


def test_float_and_large_types_of_other_writers_are_read(tmp_path):
    path = tmp_path / "p.parquet"
    write_predictions(path, [prediction()])
    table = pq.read_table(path)
    kinds = {"scenario_id": pa.large_string(), "object_id": pa.int32(), "mode": pa.int64(), "score": pa.float32(),
             "x": pa.large_list(pa.float32()), "y": pa.list_(pa.float32())}  # fmt: skip
    pq.write_table(table.cast(pa.schema(list(kinds.items()))), path)
    read = next(read_predictions(path))
    np.testing.assert_allclose(read.xy_m, prediction().xy_m, rtol=1e-6)


@pytest.mark.parametrize("kind", ["dictionary", "view"])
def test_packed_text_and_whole_scores_of_other_writers_are_read(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(format_module, "ROWS_PER_GROUP", 4)
    path = tmp_path / "p.parquet"
    items = [prediction("a"), prediction("b", seed=1)]
    write_predictions(path, [replace(item, scores=np.ones_like(item.scores)) for item in items])
    table = pq.read_table(path)
    text = table.column("scenario_id").combine_chunks()
    packed = text.dictionary_encode() if kind == "dictionary" else text.cast(pa.string_view())
    table = table.set_column(0, "scenario_id", packed)
    pq.write_table(table.set_column(3, "score", table.column("score").cast(pa.int64())), path, row_group_size=5)
    assert pq.read_schema(path).field("scenario_id").type == packed.type
    for first, second in zip(items, read_predictions(path), strict=True):
        same(replace(first, scores=np.ones((2, 3))), second)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop_columns(["score", "y"]), r"columns \['score', 'y'\] are missing"),
        (lambda table: table.set_column(2, "mode", pa.array(["0"] * len(table))), r"'mode' must have type int32, has string"),
        (lambda table: table.set_column(4, "x", table.column("score")), r"'x' must have type list<.*has double"),
    ],
    ids=["missing columns", "text for numbers", "number for a list"],
)
def test_files_of_another_shape_are_refused_as_a_whole(tmp_path, change, message):
    path = tmp_path / "p.parquet"
    write_predictions(path, [prediction()])
    pq.write_table(change(pq.read_table(path)), path)
    with pytest.raises(ValueError, match=message):
        list(read_predictions(path))


def test_what_is_no_parquet_file_is_said_to_be_none(tmp_path):
    (tmp_path / "p.parquet").write_bytes(b"no parquet here")
    with pytest.raises(ValueError, match="not a Parquet file"):
        list(read_predictions(tmp_path / "p.parquet"))
    with pytest.raises(FileNotFoundError, match="no such file"):
        list(read_predictions(tmp_path / "other.parquet"))
