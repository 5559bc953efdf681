"""Layouts: the exact bytes of a small message that has certain fields set, so that NumPy can read thousands at once.

A real record writes its states and points in one or two layouts of fixed size. Bytes that fit a layout have one reading only:
every tag stands where it must, and the sizes of the values follow from the tags.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.descriptor import FieldDescriptor

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]

# Wire type of the tag and NumPy type of the value, for the field types that always have the same size.
# (A bool is a varint, but always of one byte: protobuf writes 0 or 1.)
_FIXED: dict[int, tuple[int, str]] = {
    FieldDescriptor.TYPE_DOUBLE: (1, "<f8"),
    FieldDescriptor.TYPE_FLOAT: (5, "<f4"),
    FieldDescriptor.TYPE_BOOL: (0, "u1"),
}
_VARINT, _SUBMESSAGE = 0, 2
_LARGEST_ONE_BYTE_TAG = 15


class Layout:
    """What each byte may be, and the values among them."""

    def __init__(self) -> None:
        self.size = 0
        """Bytes of a message."""
        self._values: dict[str, tuple[int, np.dtype[Any]]] = {}  # place and type
        self._bounds: list[tuple[int, int, int]] = []  # place, lowest and highest byte there

    @property
    def names(self) -> tuple[str, ...]:
        """Of the values."""
        return tuple(self._values)

    def numbers(self, fields: Sequence[Any]) -> Layout:
        """Go on with these fields, a tag byte before each value, by rising number.

        Raises:
            ValueError: a field whose size is not fixed.
        """
        for field in fields:
            if field.number > _LARGEST_ONE_BYTE_TAG or field.type not in _FIXED:
                raise ValueError(f"{field.full_name} has no fixed layout: expected a double, float or bool of number 1 to 15")
            wire_type, numpy_type = _FIXED[field.type]
            self._tag(field.number, wire_type)
            if field.type == FieldDescriptor.TYPE_BOOL:
                self._bounds.append((self.size, 0, 1))
            self._value(field.name, numpy_type)
        return self

    def varint(self, field: Any, num_bytes: int, *, highest: int = 127) -> Layout:
        """Go on with a varint of so many bytes; `highest` bounds the last one (for enums, whose unknown values differ)."""
        self._tag(field.number, _VARINT)
        self._bounds += [(self.size + place, 128, 255) for place in range(num_bytes - 1)]
        self._bounds.append((self.size + num_bytes - 1, 0, highest))
        self._value(field.name, f"({num_bytes},)u1")
        return self

    def part(self, field: Any, inner: Layout) -> Layout:
        """Go on with a message inside this one; its values are named FIELD.NAME."""
        self._tag(field.number, _SUBMESSAGE)
        self._constant(inner.size)
        start = self.size
        self._bounds += [(start + place, low, high) for place, low, high in inner._bounds]
        self._values |= {f"{field.name}.{name}": (start + place, kind) for name, (place, kind) in inner._values.items()}
        self.size += inner.size
        return self

    def fits(self, data: Bytes, start: Places) -> npt.NDArray[np.bool_]:
        """Whether the bytes from each of these places on (N,) are a message of this layout."""
        fitting = np.ones(len(start), dtype=bool)
        for place, low, high in self._bounds:
            column = data[place:][start]  # a view: cheaper than a sum of places
            if low == high:
                fitting &= column == low
            else:
                if low:
                    fitting &= column >= low
                if high < 255:
                    fitting &= column <= high
        return fitting

    def values(self, data: Bytes, start: Places, name: str) -> npt.NDArray[Any]:
        """One value (N,) of the messages that begin at these places; the bytes (N, bytes) of a varint."""
        place, kind = self._values[name]
        # Copied as bytes, because what stands at any byte is not aligned.
        window = np.dtype((np.void, kind.itemsize))
        if not len(start):
            return np.zeros((0, *kind.shape), dtype=kind.base)
        number = len(data) - place - kind.itemsize + 1
        picked = np.ndarray(shape=(number,), dtype=window, buffer=data, offset=place, strides=(1,))[start]
        values: npt.NDArray[Any] = picked.view(kind.base).reshape(len(start), *kind.shape)
        return values

    def records(self, data: Bytes, start: Places) -> npt.NDArray[Any]:
        """The messages (N,) that begin at these places, as records of their values: one copy instead of one for each value."""
        if not len(start):
            return np.zeros(0, dtype=self._record)
        window = np.dtype((np.void, self.size))
        number = len(data) - self.size + 1
        return np.ndarray(shape=(number,), dtype=window, buffer=data, strides=(1,))[start].view(self._record)

    @cached_property
    def _record(self) -> np.dtype[Any]:
        places, kinds = zip(*self._values.values(), strict=True)
        return np.dtype({"names": list(self._values), "formats": kinds, "offsets": places, "itemsize": self.size})

    def _tag(self, number: int, wire_type: int) -> None:
        assert number <= _LARGEST_ONE_BYTE_TAG
        self._constant(number << 3 | wire_type)

    def _constant(self, value: int) -> None:
        self._bounds.append((self.size, value, value))
        self.size += 1

    def _value(self, name: str, numpy_type: str) -> None:
        kind = np.dtype(numpy_type)
        self._values[name] = (self.size, kind)
        self.size += kind.itemsize


def layout_of(fields: Sequence[Any]) -> Layout:
    """The layout of a message with exactly these fields (numbers of fixed size) set."""
    return Layout().numbers(sorted(fields, key=lambda field: field.number))


def varint_values(digits: Bytes) -> npt.NDArray[np.int64]:
    """The values (N,) of varints (N, bytes), at most nine bytes each."""
    values = np.zeros(len(digits), dtype=np.int64)
    for place in range(digits.shape[1]):
        values |= (digits[:, place].astype(np.int64) & 127) << (7 * place)
    return values
