"""The write-ahead log: its files by name, by content, in the archive and on their way there and back."""
