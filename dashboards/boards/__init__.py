"""The boards: which questions are asked where."""
