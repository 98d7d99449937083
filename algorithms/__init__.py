"""PyTorch models in, compressed PyTorch models out."""
