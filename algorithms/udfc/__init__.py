"""UDFC: channel pruning and quantization of a pretrained network without data (ICCV 2023, arXiv
2308.07209)."""
