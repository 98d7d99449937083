"""Training by files: data, teams of processes, reports."""
