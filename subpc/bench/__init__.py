"""Engines timed beside each other, each alone in its process."""
