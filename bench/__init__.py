"""`make bench`: what the depot costs, as ratios to plain tools measured in the same run. Never fails a build."""
