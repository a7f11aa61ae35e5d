"""Logs of the cloud processes: event names and fields, to standard error, one line each. Nothing is sent anywhere from here.

Invariant: control characters in a value never reach the terminal or the journal as such, and no line is longer than ``LINE_CHARS_MAX``.
"""

import logging
import sys
from collections.abc import MutableMapping

import structlog

__all__ = ["LINE_CHARS_MAX", "set_up"]

LINE_CHARS_MAX = 1024  # of one value: a sender's text must not flood the journal


def set_up(*, as_json: bool) -> None:
    """Configure structlog once for the process."""
    renderer = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _tame,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _tame(_logger: object, _method: str, event: MutableMapping[str, object]) -> MutableMapping[str, object]:
    """Cut long values and show control characters as escapes; a trace keeps its lines."""
    for key, value in event.items():
        if isinstance(value, str) and key != "exception":
            text = value if value.isprintable() else value.encode("unicode_escape").decode("ascii")
            event[key] = text[:LINE_CHARS_MAX]
    return event
