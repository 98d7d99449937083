"""The demonstration, its networks and its data."""
