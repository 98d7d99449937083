"""Two models compared: their answers, layer by layer, their speed and their size."""
