"""From operators of PyTorch to those of Relax, where TVM has none or a wrong one."""
