"""What activations look like: moments from images, or from the batch norms alone."""
