"""What clients send and get."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from app.models import MAX_ID


def _storable(title: str) -> str:
    """Refuse what no PostgreSQL text column can hold."""
    if "\0" in title or any("\ud800" <= character <= "\udfff" for character in title):
        message = "NUL and lone surrogates cannot be stored"
        raise ValueError(message)
    return title


TaskId = Annotated[int, Field(ge=1, le=MAX_ID)]
Title = Annotated[str, AfterValidator(_storable)]


class TaskIn(BaseModel):
    """A task as a client sends it; `"yes"` is no boolean and `"1"` no number."""

    model_config = ConfigDict(strict=True)

    id: TaskId | None = None
    title: Title
    completed: bool = False


class TaskChange(BaseModel):
    """What a client wants changed; what it leaves out stays."""

    model_config = ConfigDict(strict=True)

    title: Title | None = None
    completed: bool | None = None


class TaskOut(BaseModel):
    """A task as it is stored."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    title: str
    completed: Annotated[bool, BeforeValidator(bool)]  # NULL, which the table allows, is not done


class TaskPage(BaseModel):
    """A page of tasks, by ascending id, and how many there are in all."""

    items: list[TaskOut]
    total: int
    limit: int
    offset: int
