"""Files from strangers: read, checked, and nothing in them run."""
