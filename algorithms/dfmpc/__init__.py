"""DF-MPC: mixed-precision weights of a pretrained network without data (Pattern Recognition 143,
109780, arXiv 2307.00498)."""
