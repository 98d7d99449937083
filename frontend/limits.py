"""How much a network may make: of values, and of what is computed from constants."""

# No value of a network is larger (4 GiB in float32), but a hostile file can ask for more in one
# line.
MAX_ELEMENTS = 1 << 30
# All that is computed from constants: so many elements, and some copies of the weights.
CONSTANTS, COPIES_OF_WEIGHTS = 64 << 20, 16
