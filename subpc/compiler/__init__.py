"""From a model to a library: the function `compile`, and torch.compile's backend."""
