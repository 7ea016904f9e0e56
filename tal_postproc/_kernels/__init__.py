"""The numba kernels: serial, nogil, one signature each.  Arrays in, arrays out; no options as strings, no checks."""
