"""Running a library: models, tensors, arrays in files."""
