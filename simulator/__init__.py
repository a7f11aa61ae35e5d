"""Coolers and clinics that do not exist, down to their faults; and the demonstration that runs everything on one machine."""
