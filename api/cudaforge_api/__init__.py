"""FastAPI service and trace viewer (later issues)."""
