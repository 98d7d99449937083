"""DF-MPC: ternary and low-bit weights, compensated without data (Pattern Recognition 143, 2023, arXiv 2307.00498)."""
