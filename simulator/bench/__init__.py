"""Side-by-side measurement of the kernels and their peers, on generated scenes and on recordings. Not a test: it judges nothing.

Invariant: every result is decoded or parsed and compared before its size or speed is reported.
"""
