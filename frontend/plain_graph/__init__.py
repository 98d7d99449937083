"""A network as plain layers, whatever file it comes in: how it is collected, and what its readers
offer."""
