"""Compression of files: which method, how strong, on which calibration images, and what it cost."""
