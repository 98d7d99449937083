"""Every activation of the kernels as PyTorch computes it."""

from subpc.calibration.meanings import ACTIVATIONS as REFERENCE

__all__ = ["REFERENCE"]
