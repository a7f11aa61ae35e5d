"""The one statement that both engines have but spell through different classes: insert unless it is there. Not a query layer."""

from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, case
from sqlalchemy.dialects import postgresql, sqlite

__all__ = ["Insert", "clean", "insert_new", "larger", "smaller", "upsert"]

Insert = postgresql.Insert | sqlite.Insert


def upsert(connection: Connection, table: Table) -> Insert:
    """An insert of the connection's dialect, for ``on_conflict_do_update``."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def insert_new(connection: Connection, table: Table) -> Insert:
    """An insert that leaves rows alone whose key is there."""
    return upsert(connection, table).on_conflict_do_nothing()


def larger(one: ColumnElement[Any], other: ColumnElement[Any]) -> ColumnElement[Any]:
    """The larger of two values that are never null."""
    return case((one > other, one), else_=other)


def smaller(one: ColumnElement[Any], other: ColumnElement[Any]) -> ColumnElement[Any]:
    """The smaller of two values that are never null."""
    return case((one < other, one), else_=other)


def clean(text: str, chars_max: int) -> str:
    """Text from outside as one printable line of bounded length: NUL and lone surrogates are errors in PostgreSQL, line ends in logs."""
    return "".join(char if char.isprintable() else "?" for char in text[:chars_max])
