"""Questions about a network that every method asks: pairs of layers, channels, weights."""
