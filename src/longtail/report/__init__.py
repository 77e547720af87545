"""Results -> tables, figures and pages. Reads results, never trains."""
