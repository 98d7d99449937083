"""An ONNX network as plain layers: its reader, and a converter for each operator."""
