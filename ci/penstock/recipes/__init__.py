"""Builders of containers and services that many pipelines need, 10-40 lines each."""

from penstock.cache import prepared
from penstock.recipes.image import app_image
from penstock.recipes.postgres import postgres_service
from penstock.recipes.redis import redis_service
from penstock.recipes.registry import Registry
from penstock.recipes.uv import uv_project

__all__ = ["Registry", "app_image", "postgres_service", "prepared", "redis_service", "uv_project"]
