"""Bulk reading of the many small messages in a record: object states and map points.

A real record holds ten thousand states and as many map points. Nearly all are written in one or two layouts of fixed size,
so NumPy can read them all at once; whatever is written differently goes through protobuf one by one, with the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.descriptor import FieldDescriptor

# Wire type of the tag and NumPy type of the value, for the field types that always have the same size.
# (A bool is a varint, but always of one byte: protobuf writes 0 or 1.)
_FIXED: dict[int, tuple[int, str]] = {
    FieldDescriptor.TYPE_DOUBLE: (1, "<f8"),
    FieldDescriptor.TYPE_FLOAT: (5, "<f4"),
    FieldDescriptor.TYPE_BOOL: (0, "u1"),
}
_LARGEST_ONE_BYTE_TAG = 15


class _Layout:
    """The bytes of a message that has exactly these fields set: a tag byte before each value, by rising number."""

    def __init__(self, fields: Sequence[Any]) -> None:
        entries: list[tuple[str, str]] = []
        self.names = [field.name for field in fields]
        self.tags: list[int] = []
        self.tag_places: list[int] = []
        for field in fields:
            if field.number > _LARGEST_ONE_BYTE_TAG or field.type not in _FIXED:
                raise ValueError(f"{field.full_name} has no fixed layout: expected a double, float or bool of number 1 to 15")
            wire_type, numpy_type = _FIXED[field.type]
            self.tags.append(field.number << 3 | wire_type)
            self.tag_places.append(np.dtype(entries).itemsize)
            entries += [(f"tag {field.number}", "u1"), (field.name, numpy_type)]
        self.dtype = np.dtype(entries)


class PartReader:
    """Reads serialized messages of one type, all of whose fields are numbers, into the rows of an array."""

    def __init__(self, message_class: Any, *usual_fields: Sequence[str]) -> None:
        """Prepare to read `message_class`.

        Args:
            message_class: a `schema` class with double, float and bool fields only.
            usual_fields: sets of fields that messages usually have, beside the set of all fields.
        """
        fields = sorted(message_class.DESCRIPTOR.fields, key=lambda field: field.number)
        self.names = tuple(field.name for field in fields)
        self._message_class = message_class
        self._layouts = [_Layout([field for field in fields if field.name in chosen]) for chosen in (self.names, *usual_fields)]

    def read(self, parts: Sequence[bytes]) -> npt.NDArray[np.float64]:
        """(len(parts), fields by rising number) values; 0 where a field is not set."""
        values = np.zeros((len(parts), len(self.names)), dtype=np.float64)
        size = np.fromiter(map(len, parts), dtype=np.int64, count=len(parts))
        start = np.cumsum(size) - size
        data = np.frombuffer(b"".join(parts), dtype=np.uint8)
        unread = np.ones(len(parts), dtype=bool)
        for layout in self._layouts:
            rows = np.flatnonzero(size == layout.dtype.itemsize)
            if len(rows) == len(parts):  # the usual case for map points: nothing to gather
                block = data.reshape(-1, layout.dtype.itemsize)
            else:
                block = data[start[rows, None] + np.arange(layout.dtype.itemsize)]
            record = block.view(layout.dtype)[:, 0]
            fits = np.ones(len(rows), dtype=bool)
            for place, tag in zip(layout.tag_places, layout.tags, strict=True):
                fits &= block[:, place] == tag
            for name in layout.names:
                values[rows[fits], self.names.index(name)] = record[name][fits]
            unread[rows[fits]] = False
        for row in np.flatnonzero(unread).tolist():
            message = self._message_class.FromString(parts[row])
            values[row] = [getattr(message, name) for name in self.names]
        return values
