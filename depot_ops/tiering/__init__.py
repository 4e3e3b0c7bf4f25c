"""Where content lies once it is cold: storage classes of the bucket by a written policy, and what leaves the disk."""
