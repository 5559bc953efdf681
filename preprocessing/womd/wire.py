"""Bulk reading of the many small messages in a record: object states and map points.

A real record holds ten thousand states and as many map points. Nearly all are written in one or two layouts of fixed size,
so NumPy can read them all at once; whatever is written differently goes through protobuf one by one, with the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocessing.womd.layouts import Bytes, Layout, Places, layout_of


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
        sets = (self.names, *usual_fields)
        self.layouts = tuple(layout_of([field for field in fields if field.name in chosen]) for chosen in sets)

    def read(self, parts: Sequence[bytes]) -> npt.NDArray[np.float64]:
        """(len(parts), fields by rising number) values; 0 where a field is not set."""
        values = np.zeros((len(parts), len(self.names)), dtype=np.float64)
        size = np.fromiter(map(len, parts), dtype=np.int64, count=len(parts))
        start = np.cumsum(size) - size
        data = np.frombuffer(b"".join(parts), dtype=np.uint8)
        unread = np.ones(len(parts), dtype=bool)
        for layout in self.layouts:
            rows = np.flatnonzero(size == layout.size)
            rows = rows[layout.fits(data, start[rows])]
            self.fill(values, rows, layout, data, start[rows])
            unread[rows] = False
        for row in np.flatnonzero(unread).tolist():
            message = self._message_class.FromString(parts[row])
            values[row] = [getattr(message, name) for name in self.names]
        return values

    def fill(self, values: npt.NDArray[np.float64], rows: Places, layout: Layout, data: Bytes, start: Places) -> None:
        """Put the messages of a layout that begin at these places (N,) into these rows (N,) of `values`."""
        records = layout.records(data, start)
        whole = len(rows) == len(values)  # the usual case for map points: rows are all in order
        # Otherwise row by row in a second step: that scatters once, not once for each column.
        table = values if whole else np.zeros((len(rows), len(self.names)))
        with np.errstate(invalid="ignore"):  # a NaN of any kind stays one
            for name in layout.names:
                table[:, self.names.index(name)] = records[name]
        if not whole:
            values[rows] = table
