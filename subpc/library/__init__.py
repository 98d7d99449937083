"""A compiled library as a file: how it is written, checked, loaded, and what it says about
itself."""
