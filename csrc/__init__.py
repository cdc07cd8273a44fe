"""The C headers as the package ``schuss._csrc``, so that kernels can be compiled from them at run time."""
