"""The cuda backend: the kernels of ``csrc/cuda`` through CuPy."""
