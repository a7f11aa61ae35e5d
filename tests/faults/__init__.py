"""Faults: power cuts, kills, failing and full disks. Each test's broken twin (a laxer setting) is seen to fail."""
