from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.womd import range_image, schema
from preprocessing.womd.range_image import QuantisedImage, RangeImageError, decode, decode_quantised, encode, open_image
from preprocessing.womd.tfrecord import iter_records
from preprocessing.womd.varint import encode_varints, zigzag

GOLDEN = Path(__file__).parents[2] / "golden" / "lidar"


def plain_message(image: np.ndarray, precision: list[float]) -> Any:
    """The message of an image, entry after entry as the format describes it."""
    height, width, channels = image.shape
    message = schema.DeltaEncodedData()
    message.metadata.shape.extend(image.shape)
    message.metadata.quant_precision.extend(precision)
    previous, state, run = 0, True, 0
    for channel in range(channels):
        for row in range(height):
            for column in range(width):
                entry = int(np.round(image[row, column, channel] / precision[channel]))
                if (entry != 0) != state:
                    message.mask.append(run)
                    state, run = not state, 0
                run += 1
                if entry:
                    message.residual.append(entry - previous)
                    previous = entry
    message.mask.append(run)
    return message


@st.composite
def images(draw: st.DrawFn) -> tuple[np.ndarray, list[float]]:
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 4)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    image = rng.normal(0, draw(st.sampled_from([0.01, 1.0, 5000.0])), shape)
    image *= rng.random(shape) < draw(st.sampled_from([0.0, 0.3, 0.9, 1.0]))
    image.reshape(-1)[0] *= draw(st.booleans())
    if draw(st.booleans()):
        image[:] = image[:1]  # rows that repeat take a way of their own
    if draw(st.booleans()):
        image = image.astype(np.float32)
    return image, rng.choice([1e-6, 0.005, 0.01, 1.0], shape[2]).tolist()


@settings(max_examples=60, deadline=None)
@given(images())
def test_encode_writes_the_described_message_and_decode_reads_it(case: tuple[np.ndarray, list[float]]) -> None:
    image, precision = case
    before = image.copy()
    data = encode(image, precision)
    assert zlib.decompress(data) == plain_message(image, precision).SerializeToString()
    np.testing.assert_array_equal(image, before)
    rounding = np.array(precision) * 0.5 + np.abs(image) * 1e-6  # the stored precision is float32
    assert (np.abs(decode(data) - image) <= rounding + 1e-12).all()
    assert encode(decode(data), decode_quantised(data).precision.tolist()) == data


def test_reencoding_gives_the_bytes_of_waymos_encoder() -> None:
    count = 0
    for _, data in iter_records(GOLDEN / "crops_golden.tfrecord"):
        for frame in schema.Scenario.FromString(data).compressed_frame_laser_data[:2]:
            for laser in frame.lasers:
                for part in (laser.ri_return1, laser.ri_return2):
                    for official in (part.range_image_delta_compressed, part.range_image_pose_delta_compressed):
                        if official:
                            image = decode_quantised(official)
                            assert zlib.decompress(encode(image.image(), image.precision.tolist())) == zlib.decompress(official)
                            count += 1
    assert count == 2 * 11


def test_a_view_of_one_row_is_encoded_as_its_copy() -> None:
    row = np.random.default_rng(0).normal(0, 5, (1, 7, 6))
    row[0, 3:, 2] = 0.0
    view = np.broadcast_to(row, (4, 7, 6))
    assert encode(view, [0.01] * 6) == encode(view.copy() + 0.0, [0.01] * 6)
    changed = view.copy()
    changed[2, 3, 1] += 1.0
    assert zlib.decompress(encode(changed, [0.01] * 6)) == plain_message(changed, [0.01] * 6).SerializeToString()


@pytest.mark.parametrize("value", [0.0, 3.0], ids=["zero", "filled"])
def test_a_single_pixel_survives(value: float) -> None:
    assert decode(encode(np.full((1, 1, 1), value), [1.0])).tolist() == [[[value]]]


def test_levels_change_the_size_alone() -> None:
    image = np.random.default_rng(0).random((8, 30, 4))
    sizes = {level: len(encode(image, [0.01] * 4, level=level)) for level in (0, 1, 9)}
    assert sizes[0] > sizes[1] >= sizes[9]
    assert len({zlib.decompress(encode(image, [0.01] * 4, level=level)) for level in sizes}) == 1


@pytest.mark.parametrize(
    ("image", "precision"),
    [
        (np.zeros((2, 3)), [1.0]),
        (np.zeros((0, 3, 1)), [1.0]),
        (np.zeros((1, 70000, 1)), [1.0]),
        (np.zeros((2, 3, 2)), [1.0]),
        (np.zeros((2, 3, 1)), [0.0]),
        (np.full((2, 3, 1), np.nan), [1.0]),
        (np.full((2, 3, 1), np.inf), [1.0]),
        (np.full((2, 3, 1), 1e300), [1.0]),
    ],
    ids=["two axes", "empty", "too wide", "one precision for two channels", "precision 0", "NaN", "infinite", "too large"],
)
def test_images_that_cannot_be_encoded_are_refused(image: np.ndarray, precision: list[float]) -> None:
    with pytest.raises(RangeImageError):
        encode(image, precision)


def broken(**fields: Any) -> bytes:
    """A compressed message of a 1 x 2 x 1 image with some fields changed."""
    sound: dict[str, Any] = {"residual": [3, 1], "mask": [2], "shape": [1, 2, 1], "precision": [1.0]}
    values = {**sound, **fields}
    metadata = schema.Metadata(shape=values["shape"], quant_precision=values["precision"])
    message = schema.DeltaEncodedData(residual=values["residual"], mask=values["mask"], metadata=metadata)
    return zlib.compress(message.SerializeToString())


def packed(residual: bytes, mask: bytes) -> bytes:
    """A compressed message of a 1 x 2 x 1 image with these bytes for its lists."""
    metadata = schema.Metadata(shape=[1, 2, 1], quant_precision=[1.0])
    return zlib.compress(schema.PackedDeltaData(residual=residual, mask=mask, metadata=metadata).SerializeToString())


def test_the_message_that_the_broken_ones_are_made_of_is_sound() -> None:
    assert decode(broken()).tolist() == [[[3.0], [4.0]]]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "cut off"),
        (b"no zlib at all", "no zlib stream"),
        (broken()[:-5], "cut off"),
        (zlib.compress(b"\xff\xff\xff"), "DeltaEncodedData"),
        (packed(b"\x80\x80", b"\x02"), "DeltaEncodedData"),
        (packed(b"\x06\x02", b"\x80"), "DeltaEncodedData"),
        (zlib.compress(b""), "shape"),
        (broken(shape=[1, 2]), "shape"),
        (broken(shape=[1, -2, 1]), "shape"),
        (broken(shape=[60000, 60000, 4]), "shape"),
        (broken(precision=[]), "quant_precision"),
        (broken(precision=[float("nan")]), "quant_precision"),
        (broken(mask=[1]), "runs"),
        (broken(mask=[2, 4294967295]), "runs"),
        (broken(residual=[3]), "1 residuals"),
        (broken(residual=[3, 1, 1]), "3 residuals"),
    ],
)
def test_bytes_that_are_no_range_image_are_named(data: bytes, says: str) -> None:
    with pytest.raises(RangeImageError, match=says):
        decode(data)


def field(number: int, wire_type: int, payload: bytes) -> bytes:
    """One field of a message: tag, length where the wire type has one, payload."""
    length = encode_varints(np.array([len(payload)], dtype=np.uint64)) if wire_type == 2 else b""
    return bytes([number << 3 | wire_type]) + length + payload


@pytest.mark.parametrize("how", ["not packed", "packed in parts"])
def test_lists_may_be_written_in_every_way_that_protobuf_reads(how: str) -> None:
    image = np.zeros((2, 5, 4))
    image[0, 1:3, 0], image[1, 4, 1], image[0, 0, 3] = (5.0, -700.0), 1000.0, -1.0
    message = schema.DeltaEncodedData.FromString(zlib.decompress(encode(image, [1.0] * 4)))
    residual, mask = zigzag(np.array(message.residual)), np.array(message.mask, dtype=np.uint64)
    data = b""
    for number, values in ((1, residual), (2, mask)):
        if how == "not packed":
            data += b"".join(field(number, 0, encode_varints(values[place : place + 1])) for place in range(len(values)))
        else:
            data += field(number, 2, encode_varints(values[:2])) + field(number, 2, encode_varints(values[2:]))
    data += field(3, 2, message.metadata.SerializeToString())
    assert schema.DeltaEncodedData.FromString(data) == message
    np.testing.assert_array_equal(decode(zlib.compress(data)), image)


def test_runs_that_wrap_around_to_the_right_sum_are_refused() -> None:
    metadata = schema.Metadata(shape=[1, 2, 1], quant_precision=[1.0])
    runs = encode_varints(np.array([2, 2**63, 2**63], dtype=np.uint64))
    message = schema.PackedDeltaData(residual=encode_varints(zigzag(np.array([3, 1]))), mask=runs, metadata=metadata)
    with pytest.raises(RangeImageError, match="runs"):
        decode(zlib.compress(message.SerializeToString()))


@settings(max_examples=60, deadline=None)
@given(images(), st.data())
def test_rows_and_pixels_are_those_of_the_whole_image(case: tuple[np.ndarray, list[float]], data: st.DataObject) -> None:
    image, precision = case
    if data.draw(st.booleans()):  # nearly empty ones are read in a way of their own
        image = image.copy()
        image[1:, 1:] = 0.0
        image = np.tile(image, (9, 9, 1))
    packed_image, whole = open_image(encode(image, precision)), decode_quantised(encode(image, precision))
    channels, height, width = packed_image.shape
    np.testing.assert_array_equal(packed_image.values, whole.values)
    np.testing.assert_array_equal(packed_image.image(), whole.image())
    top = data.draw(st.integers(0, height - 1))
    bottom = data.draw(st.integers(top, height))
    for channel in range(channels):
        np.testing.assert_array_equal(packed_image.rows(channel, top, bottom), whole.values[channel, top:bottom])
    rows, columns = (
        np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=3, max_size=3))) for size in (height, width)
    )
    expected = whole.image()[rows, columns]
    np.testing.assert_array_equal(packed_image.pixels(rows, columns, channels), expected)
    columns_in_use = (whole.values[0] != 0).any(axis=0)
    for start in range(width):
        (found,) = packed_image.has_entries([slice(start, width)])
        assert found or not columns_in_use[start:].any()


def test_equal_rows_are_kept_once_and_nearly_equal_ones_are_not_mistaken_for_them() -> None:
    image = np.tile(np.random.default_rng(0).normal(0, 5, (1, 7, 6)), (5, 1, 1))
    image[..., 1] = 0.0
    same = open_image(encode(image, [0.01] * 6))
    assert isinstance(same, QuantisedImage)
    assert same.has_equal_rows
    np.testing.assert_allclose(same.image(), image, atol=0.00501)
    drifting = np.cumsum(np.full((5, 7, 1), 0.5).ravel()).reshape(5, 7, 1)  # all differences are the same
    for other in (drifting, np.concatenate([image[:-1], image[-1:] + 1.0])):
        read = open_image(encode(other, [0.01] * other.shape[2]))
        assert not (isinstance(read, QuantisedImage) and read.has_equal_rows)
        np.testing.assert_allclose(read.values.transpose(1, 2, 0) * read.precision, other, atol=0.00501)


def test_a_small_stream_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(range_image, "MAX_DECOMPRESSED_BYTES", 1000)
    with pytest.raises(RangeImageError, match="more than 1000"):
        decode(zlib.compress(bytes(100_000)))
