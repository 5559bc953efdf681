"""Decisions about sparse layers, summed up by parts of the model."""

from rich.console import Console

from evaluation.latency_layers import PartSummary, as_rows, by_part, layers_table
from sparse_core.sparse.compile import Decision

DECISIONS = (
    Decision("model.encoder.layers.0.linear1.weight", 0.2, True, "at least 1.5 times faster", (((4, 8), 2),), 0.004, 0.001),
    Decision("model.encoder.layers.0.self_attn.in_proj_weight", 0.3, False, "it belongs to LocalAttention"),
    Decision("model.decoder.head.weight", 0.5, False, "less than 1.5 times faster", (((4, 8), 1),), 0.002, 0.003),
    Decision("model.encoder.layers.1.linear1.weight", 0.1, False, "less than 1.5 times faster", (((4, 8), 1),), 0.003, 0.0025),
)


def test_parts_add_up_what_was_measured_and_count_why_the_rest_stays_dense() -> None:
    encoder, decoder = by_part(DECISIONS)
    assert encoder == PartSummary(
        part="encoder.layers", weights=3, density=(0.1, 0.3), replaced=1, dense_s=0.007, sparse_s=0.0035, chosen_s=0.004,
        kept={"it belongs to LocalAttention": 1, "less than 1.5 times faster": 1},
    )  # fmt: skip
    assert (decoder.part, decoder.replaced, decoder.chosen_s) == ("decoder.head", 0, 0.002)


def test_the_table_has_a_row_per_part_and_one_of_all_together() -> None:
    console = Console(width=180)
    with console.capture() as capture:
        console.print(layers_table(by_part(DECISIONS), "batch 1"))
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capture.get().splitlines() if "│" in line]
    assert lines[0][:7] == ["encoder.layers", "3", "0.10-0.30", "1", "7.00", "3.50", "4.00"]
    assert lines[1] == ["decoder.head", "1", "0.50", "0", "2.00", "3.00", "2.00", "1: less than 1.5 times faster"]
    assert lines[2] == ["together", "4", "", "1", "9.00", "6.50", "6.00", ""]


def test_every_decision_is_kept_for_the_file_of_numbers() -> None:
    rows = as_rows(DECISIONS)
    assert [row["weight"] for row in rows] == [decision.layer.removeprefix("model.") for decision in DECISIONS]
    assert rows[0]["inputs"] == [{"shape": [4, 8], "calls": 2}]
    assert (rows[1]["dense_s"], rows[1]["reason"]) == (None, "it belongs to LocalAttention")
