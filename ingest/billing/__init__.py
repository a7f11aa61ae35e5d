"""Billing: what was used, by whom, what is owed, and the proof. Integers only; no float enters this package."""
