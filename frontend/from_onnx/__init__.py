"""ONNX models: read, to Relax, to a plain graph, traced."""
