"""Studies that put `sparse_core` to the test: published methods on real digits, over seeds, with intervals.

    python -m sparse_core.family.set_mlp
    python -m sparse_core.family.pruning_criteria

docs/sparsity/family.md says what they show and what came out.
"""
