"""Finds, starts or builds a Dagger engine, and the venv. Standard library only."""
