"""The search for faster schedules."""
