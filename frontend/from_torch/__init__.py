"""PyTorch models: to Relax, to a plain graph, traced."""
