"""The prune/grow engine for dynamic sparse training."""
