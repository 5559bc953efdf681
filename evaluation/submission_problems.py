"""What is wrong with a submission, in sentences: alike problems together, with the first places where they are."""

from __future__ import annotations

SHOWN = 4


class Problems:
    """Collects what the server would reject, and remarks about what it would not."""

    def __init__(self) -> None:
        self._rejected: dict[str, list[str]] = {}
        self._remarks: dict[str, list[str]] = {}

    def reject(self, sentence: str, *places: str) -> None:
        """Something that a submission is rejected for, and where it is."""
        self._rejected.setdefault(sentence, []).extend(places)

    def remark(self, sentence: str, *places: str) -> None:
        """Something that is not rejected, but hardly meant."""
        self._remarks.setdefault(sentence, []).extend(places)

    @property
    def rejected(self) -> list[str]:
        """A line per kind of problem; empty if the submission is sound."""
        return [_line(sentence, places) for sentence, places in self._rejected.items()]

    @property
    def remarks(self) -> list[str]:
        """A line per kind of remark."""
        return [_line(sentence, places) for sentence, places in self._remarks.items()]


def _line(sentence: str, places: list[str]) -> str:
    if not places:
        return sentence
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    return f"{sentence}: {', '.join(places[:SHOWN])}{more}"
