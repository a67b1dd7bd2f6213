"""The service that the pipeline gates: a tasks API on FastAPI and PostgreSQL."""
