"""The page that `subpc profile --html` writes."""
