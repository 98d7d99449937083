"""Networks as plain data: layers with weights, operators without, and which reads what."""
