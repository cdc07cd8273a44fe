"""The C headers as the package ``schuss._csrc``: kernels are compiled from them at run time."""
