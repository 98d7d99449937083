"""Operators to TIR: one file a kernel family."""
