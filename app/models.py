"""The tables."""

from __future__ import annotations

from sqlalchemy import String, false
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

MAX_ID = 2**31 - 1  # PostgreSQL's `serial` is a 32 bit integer


class Base(DeclarativeBase):
    """Base of every table."""


class Task(Base):
    """Something to do."""

    __tablename__ = "tasks"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String)
    completed: Mapped[bool | None] = mapped_column(default=False, server_default=false())
