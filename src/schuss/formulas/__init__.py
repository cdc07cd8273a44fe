"""Formulas: losses, rules, penalties, schedules and the index bijection, as pure mathematics.

Each is written once here, branch-free, so that NumPy runs it on arrays and Numba compiles the very
same function; and once in C++ (``csrc/formulas.h``). Tests hold the two against each other.
"""
