"""What people look at: Grafana dashboards as generated JSON, and the web console. Nothing here is on the path of a reading."""
