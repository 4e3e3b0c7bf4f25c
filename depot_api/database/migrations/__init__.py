"""Numbered migrations, plain SQL inside. A landed one is never edited; the next one repairs it."""
