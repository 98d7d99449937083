"""Uniform 1xN block pruning of a pretrained network without data, with compensation in closed
form."""
