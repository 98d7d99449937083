"""One layer fitted to what it should compute: least squares."""
