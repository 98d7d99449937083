"""Where the time of a library goes, layer by layer, and what the machine could do."""
