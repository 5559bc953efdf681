"""What is said when a Scenario record cannot become a scene."""

from __future__ import annotations


class ScenarioError(ValueError):
    """A Scenario record that cannot become a scene; the message names source, scenario, field, expectation and remedy."""


def scenario_error(source: str, scenario_id: str, field: str, expectation: str) -> ScenarioError:
    """The error for one field of one record.

    Args:
        source: where the record came from (file and record); may be empty.
        scenario_id: empty if not known.
        field: the field as the record names it.
        expectation: what it must be, and what it is.
    """
    return ScenarioError(f"{source or 'record'}: scenario {scenario_id!r}: {field} must be {expectation}")
