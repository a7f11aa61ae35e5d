"""From the broker to the ledger, and from the ledger to everything that shows it. Never imported by ``edge``."""
