"""Raw WOMD records (or the simulator's) to shards."""
