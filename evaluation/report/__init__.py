"""The report to look at: what `limtr evaluate --report` writes."""
