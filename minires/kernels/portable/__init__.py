"""Array-module code for NumPy and CuPy alike: the definition of correct."""
