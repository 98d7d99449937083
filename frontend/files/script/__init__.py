"""TorchScript files: what is in them is checked before PyTorch runs any of it."""
