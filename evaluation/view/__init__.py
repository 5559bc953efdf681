"""Looking at one scene: what `limtr view` makes."""
