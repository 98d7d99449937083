"""Numerical parts: quantizers, systems of equations, polynomials of normal variables, memory."""
