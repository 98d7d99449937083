"""Relax to Relax, then Relax to a program of kernels: one pass a file, the whole compile in
pipeline.py."""
