"""Images as networks want them: read, prepared, in folders, and what comes out as an image."""
