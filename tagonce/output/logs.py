"""Logs of a worker on standard error: one line per event, text or JSON."""

import logging
import sys
import warnings

import structlog
from celery.exceptions import SecurityWarning
from structlog.types import Processor


def to_stderr(*, level: str, as_json: bool) -> None:
    """Log all events, also those of libraries, in one format. Context bound to a chunk is in its lines."""
    facts: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Plain tracebacks: the default prints values of variables, passwords among them.
    shown: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if as_json
        else [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                exception_formatter=structlog.dev.plain_traceback,
                pad_event_to=0,
                repr_native_str=True,  # a name may contain control characters or line breaks
            )
        ]
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *facts,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=facts, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *shown]
        )
    )
    logging.captureWarnings(capture=True)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # The warning is about pickle, which is not accepted, and names an option that does not exist here.
    warnings.filterwarnings("ignore", "You're running the worker with superuser", SecurityWarning)
    for library in ("alembic", "botocore", "celery"):
        logging.getLogger(library).setLevel(logging.WARNING if level == "INFO" else level)
