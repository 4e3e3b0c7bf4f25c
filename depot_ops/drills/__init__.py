"""Restore drills: what lies in the backup directory becomes a database again, and is proved."""
