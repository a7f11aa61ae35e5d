"""The outbox's tables by number: ``outbox_0001.sql``, ``mirror_0001.sql``, … Applied in order, once each; never edited."""
