"""Exported programs (.pt2): what is in the archive, understood and written anew before PyTorch
loads it."""
