"""Settings of the service, all from environment variables."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError


class Settings(BaseSettings):
    """What the service reads from its environment.

    Attributes:
        database_url: `DATABASE_URL`, `postgresql://...`; unset, an embedded SQLite file serves.
        redis_url: `REDIS_URL`, `redis://...`; unset, nothing is cached.
        sqlite_path: `SQLITE_PATH`, the file of the embedded database.
        log_level: `LOG_LEVEL`.
    """

    model_config = SettingsConfigDict(frozen=True, hide_input_in_errors=True)

    database_url: str = ""
    redis_url: str = ""
    sqlite_path: Path = Path("tasks.db")
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, value: str) -> str:
        """Refuse what the service cannot use, without repeating the password in the message."""
        if not value:
            return value
        try:
            scheme = make_url(value).get_backend_name()
        except ArgumentError as error:
            message = "DATABASE_URL is no URL; write postgresql://user:password@host:5432/database"
            raise ValueError(message) from error
        if scheme not in {"postgresql", "postgres"}:
            message = f"DATABASE_URL has the scheme '{scheme}'; only postgresql:// is supported"
            raise ValueError(message)
        return value

    @property
    def database(self) -> URL:
        """The database with its async driver."""
        if not self.database_url:
            return URL.create("sqlite+aiosqlite", database=str(self.sqlite_path))
        return make_url(self.database_url).set(drivername="postgresql+asyncpg")
