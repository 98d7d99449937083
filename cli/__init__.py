"""The `subpc` command: each subcommand parses and prints, the API does the work."""
