"""Standbys of the depot's primary: made, watched, switched to. Physical streaming replication, without consensus."""
