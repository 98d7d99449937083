"""ONNX operators that get converters of ours."""
