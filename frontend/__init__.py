"""PyTorch and ONNX models in, Relax module and parameters out."""
