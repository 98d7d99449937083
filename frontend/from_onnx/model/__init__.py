"""An ONNX model before it is imported: checked, opened, folded, with static shapes."""
