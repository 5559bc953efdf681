"""Walking over the fields of a serialized message without reading them."""

from __future__ import annotations

from collections.abc import Iterator

_MOST_VARINT_BYTES = 10


class UnusualError(Exception):
    """A message that is not written in the usual way; protobuf has to read it."""


def top_fields(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """The fields of a message of many long parts: tag (0 if longer than a byte), where the field begins, where the
    bytes in it begin (its end for numbers), and where it ends.

    Raises:
        UnusualError: as `after_field`.
    """
    place, stop = 0, len(data)
    while place < stop:
        tag = data[place]
        if tag & 135 == 2 and place + 3 < stop and data[place + 1] > 127 and data[place + 2] < 128:
            # A length of two bytes: nearly all parts have one.
            value = place + 3
            after = value + (data[place + 1] & 127 | data[place + 2] << 7)
            if after > stop:
                raise UnusualError
        else:
            after = after_field(data, place, stop)
            value = after_length(data, place + 1, stop)[0] if tag & 135 == 2 else after
            tag = tag if tag < 128 else 0
        yield tag, place, value, after
        place = after


def after_field(data: bytes, place: int, stop: int) -> int:
    """Where the field that begins at a place ends.

    Raises:
        UnusualError: groups, overlong tags, or a field that goes beyond the message: only protobuf knows what is right then.
    """
    tag = data[place]
    wire_type, place = tag & 7, place + 1
    if tag > 127:
        wide, place = varint(data, place - 1, stop)
        if wide < 128:
            raise UnusualError
    if wire_type == 1:
        after = place + 8
    elif wire_type == 0:
        if place < stop and data[place] < 128:
            after = place + 1
        elif place + 1 < stop and data[place + 1] < 128:
            after = place + 2
        else:
            after = varint(data, place, stop)[1]
    elif wire_type == 2:
        return after_length(data, place, stop)[1]
    elif wire_type == 5:
        after = place + 4
    else:
        raise UnusualError
    if after > stop:
        raise UnusualError
    return after


def find_tag(data: bytes, place: int, stop: int, tag: int) -> int:
    """Where the first field of a tag begins, of the fields from a place on; `stop` if there is none.

    Raises:
        UnusualError: as `after_field`.
    """
    while place < stop:
        found = data[place]
        if found == tag:
            return place
        # Short numbers and doubles, as nearly all fields before such a one are.
        if found < 128 and found & 7 == 0 and place + 1 < stop and data[place + 1] < 128:
            place += 2
        elif found < 128 and found & 7 == 1 and place + 9 <= stop:
            place += 9
        else:
            place = after_field(data, place, stop)
    return stop


def after_length(data: bytes, place: int, stop: int) -> tuple[int, int]:
    """Where the bytes begin and end whose length stands at a place.

    Raises:
        UnusualError: they go beyond the message.
    """
    if place + 1 < stop and data[place] < 128:
        length, value = data[place], place + 1
    elif place + 2 < stop and data[place + 1] < 128:
        length, value = data[place] & 127 | data[place + 1] << 7, place + 2
    else:
        length, value = varint(data, place, stop)
    after = value + length
    if after > stop:
        raise UnusualError
    return value, after


def varint(data: bytes, place: int, stop: int) -> tuple[int, int]:
    """The varint at a place, and the place after it.

    Raises:
        UnusualError: it goes on beyond the message or ten bytes.
    """
    value = shift = 0
    for index in range(place, min(stop, place + _MOST_VARINT_BYTES)):
        byte = data[index]
        if byte < 128:
            return value | byte << shift, index + 1
        value |= (byte & 127) << shift
        shift += 7
    raise UnusualError


def length_prefix(length: int) -> bytes:
    """The length of a field that holds bytes, as it stands behind its tag."""
    if length < 128:
        return _SHORT[length]
    digits = bytearray()
    while length > 127:
        digits.append(length & 127 | 128)
        length >>= 7
    digits.append(length)
    return bytes(digits)


_SHORT = [bytes([length]) for length in range(128)]
