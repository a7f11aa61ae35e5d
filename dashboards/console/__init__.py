"""The web console: server-rendered pages and a JSON API over the cloud store. It reads; it never controls a cooler."""
