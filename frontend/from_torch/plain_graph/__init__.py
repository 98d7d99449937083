"""An exported program as plain layers: its reader, and a converter for each operator."""
