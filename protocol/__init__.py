"""What both ends must agree on. Pure: no I/O, no clock, no randomness; only ``native`` below it."""
