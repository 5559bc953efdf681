"""compare.md: a comparison to read, with its verdicts, tables, pictures and how the intervals were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from evaluation.comparison.analyse import Comparison
from evaluation.comparison.degraded import Curves, curves_table, untouched
from evaluation.comparison.results import Context
from evaluation.comparison.tables import cost_table, quality_table
from evaluation.comparison.variants import Variant
from evaluation.comparison.verdicts import count_intervals, coverage, percent, verdicts
from limtr.files import write_bytes


def write_document(
    path: Path, comparison: Comparison, context: Context, curves: Curves, *, pictures: Sequence[Path], command: str
) -> Path:
    """Write the document beside its pictures."""
    numbers = next(iter(comparison.variants.values()))
    types = len(comparison.scenes.object_id)
    sections = [
        f"# {' / '.join(comparison.variants)}",
        f"```\n{command}\n```",
        f"{len(comparison.scenes.scenario_ids)} scenes with {types} predicted objects; means over the horizons; differences to "
        f"**{comparison.baseline}** with {percent(numbers.values.level)} intervals over {coverage(comparison)}.",
        *_failures(context),
        "## What the intervals say",
        *_said(comparison),
        "## Quality",
        quality_table(comparison).as_markdown(),
        *(f"![{picture.stem}]({picture.name})" for picture in pictures),
        *(["## Degraded inputs", curves_table(curves).as_markdown()] if curves else []),
        *(f"`{corruption}`: {', '.join(names)} reads no LiDAR and feels nothing of it." for corruption, names in
          untouched(curves, list(comparison.variants)).items()),
        "## Cost",
        cost_table(comparison, context.costs).as_markdown(),
        "Times and memory are those of `limtr train` on this machine beside whatever else ran; CPU-seconds depend least on "
        "that. FLOPs are those of the matrix products and of attention in the prediction of one agent. Where a variant is "
        "sparse, links are its weights that are not zeros of a sparse layer, and FLOPs at the links leave those zeros out: "
        "what kernels could save, not what was saved here, since masked layers compute their zeros.",
        "## Variants",
        "\n".join(_variant(variant) for variant in context.variants),
        "## How the intervals were made",
        _method(comparison, context),
    ]  # fmt: skip
    write_bytes(path, ("\n\n".join(sections) + "\n").encode())
    return path


def _variant(variant: Variant) -> str:
    options = ", ".join(f"{name} {value}" for name, value in variant.options.items()) or "the defaults"
    return f"- **{variant.name}** ({variant.file}, data {variant.data}): {options}"


def _failures(context: Context) -> list[str]:
    if not context.failed:
        return []
    lines = "\n".join(f"- {item.run.name}: see {item.run.log}" for item in context.failed)
    return [f"**Without a result** ({len(context.failed)} runs; the numbers below are of the others):\n\n{lines}"]


def _said(comparison: Comparison) -> list[str]:
    said = []
    for name, numbers in comparison.variants.items():
        if name == comparison.baseline:
            continue
        if numbers.difference is None:
            said.append(f"**{name}** shares no finished seed with {comparison.baseline}: nothing can be compared.")
            continue
        sentences = list(verdicts(comparison, name))
        if not sentences and not count_intervals(comparison, [name])[0]:
            said.append(f"**{name}**: no interval of the difference to {comparison.baseline} is known: too few scenes.")
            continue
        if not sentences:
            said.append(f"**{name}**: every interval of the difference to {comparison.baseline} includes zero.")
            continue
        said.append(f"**{name}**:\n\n" + "\n".join(f"- {sentence}" for sentence in sentences))
    looked, excluded = count_intervals(comparison)
    if looked:
        level = next(iter(comparison.variants.values())).values.level
        said.append(
            f"{excluded} of {looked} intervals exclude zero. Were nothing different, about {(1 - level) * looked:.1f} of them"
            " would by chance: a single verdict among many weighs little."
        )
    return said


def _method(comparison: Comparison, context: Context) -> str:
    seeds = {name: ", ".join(map(str, numbers.seeds)) for name, numbers in comparison.variants.items()}
    alone = coverage(comparison) != "scenes and seeds"
    order = (
        f"The variants do not see the scenes in one order, because they differ in {context.same_order}."
        if context.same_order
        else "For each seed all variants see the training scenes in one order, cut into the same batches."
    )
    return (
        f"Seeds: {_seeds(seeds)}. {order} {comparison.num_resamples} resamples draw scenes and seeds with replacement, the"
        " same for all variants; every metric (mAP too) is computed anew from the drawn scenes. The drawn differences give the"
        " intervals' shape; their width is set from the variances over scenes and between seeds, the latter with Student's"
        " quantile (`evaluation/bootstrap.py`)."
        + (" Where only one seed is shared, an interval is over scenes only: it says nothing of other seeds." if alone else "")
        + " Values that less than two scenes tell of have no interval and are marked `[?]`."
    )


def _seeds(seeds: Mapping[str, str]) -> str:
    if len(set(seeds.values())) == 1:
        return next(iter(seeds.values()))
    return "; ".join(f"{name} {listed}" for name, listed in seeds.items())
