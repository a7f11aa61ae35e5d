"""The kernels' slow twins: independent code, the oracle of the compiled ones, and what runs under ``ICECAP_REFERENCE=1``.

Not a port: only tables and limits are shared. Invariant: bit for bit equal to the compiled kernels, in both directions.
"""
