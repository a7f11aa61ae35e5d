"""Where readings come from: coolers on a clinic's broker, recordings."""
