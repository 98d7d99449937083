"""What whole numbers are calibrated with: ranges of tensors, codes of weights, and where in a graph
they stand."""
