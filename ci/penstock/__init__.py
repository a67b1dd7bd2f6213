"""CI as ordinary Python on the Dagger engine: typed stages, services, gates and reports."""

from penstock.errors import PenstockError
from penstock.model import Command, Coverage, Health, JUnit, Report, Service
from penstock.pipeline import Pipeline
from penstock.recipes.registry import Registry
from penstock.secrets import Secret
from penstock.source import Source

__version__ = "0.1.0"

__all__ = [
    "Command",
    "Coverage",
    "Health",
    "JUnit",
    "PenstockError",
    "Pipeline",
    "Registry",
    "Report",
    "Secret",
    "Service",
    "Source",
]
