from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.womd import schema
from preprocessing.womd.varint import VarintError, decode_signed, decode_varints, encode_varints, unzigzag, zigzag

SIGNED = st.lists(st.one_of(st.integers(-200, 200), st.integers(-(2**63), 2**63 - 1)), max_size=40)


@settings(max_examples=60, deadline=None)
@given(SIGNED)
def test_packed_fields_are_those_of_protobuf(numbers: list[int]) -> None:
    values = np.array(numbers, dtype=np.int64)
    packed = encode_varints(zigzag(values))
    assert schema.DeltaEncodedData(residual=numbers).SerializeToString() == (
        schema.PackedDeltaData(residual=packed).SerializeToString() if numbers else b""
    )
    assert unzigzag(decode_varints(packed)).tolist() == numbers
    assert decode_signed(packed).tolist() == numbers


@pytest.mark.parametrize("data", [b"\x80", b"\x01\xff", b"\x80" * 10 + b"\x01"], ids=["cut", "cut later", "eleven bytes"])
def test_broken_varints_are_refused(data: bytes) -> None:
    for decode in (decode_varints, decode_signed):
        with pytest.raises(VarintError):
            decode(data)
