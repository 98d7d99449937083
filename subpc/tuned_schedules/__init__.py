"""Schedules that tuning found: the database, those that come with subpc, and which of them a
compile uses."""
