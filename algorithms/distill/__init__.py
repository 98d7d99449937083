"""Distillation: a compressed network learns from the float one, on images without labels."""
