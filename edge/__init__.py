"""The gateway agent: reads coolers, keeps what they say on disk, sends it until the cloud has a receipt for it."""
