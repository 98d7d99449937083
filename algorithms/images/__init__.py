"""Images for methods that have no data."""
