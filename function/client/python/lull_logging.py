"""The root handler of logging, which writes lines as Lambda does, or JSON if AWS_LAMBDA_LOG_FORMAT says so."""

import json
import logging
import os
import sys
import threading
import time

_local = threading.local()
_latest = ""  # for threads that the function has started, if there is one invocation at a time


def set_request(request_id, alone):
    global _latest
    _local.request_id = request_id
    if alone:
        _latest = request_id


class _RequestID(logging.Filter):
    def filter(self, record):
        record.aws_request_id = getattr(_local, "request_id", _latest)
        return True


class _Output(logging.Handler):
    """sys.stdout is looked up at every record: a function may replace it."""

    def emit(self, record):
        try:
            sys.stdout.write(self.format(record))
            sys.stdout.flush()
        except Exception:
            self.handleError(record)


class _JSON(logging.Formatter):
    PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "aws_request_id"}

    def format(self, record):
        entry = {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname,
            "message": record.getMessage(),
            "logger": record.name,
            "requestId": record.aws_request_id,
        }
        if record.exc_info:
            entry["errorType"] = getattr(record.exc_info[0], "__name__", None)
            entry["errorMessage"] = str(record.exc_info[1])
            entry["stackTrace"] = self.formatException(record.exc_info).splitlines()
            entry["location"] = f"{record.pathname}:{record.funcName}:{record.lineno}"
        entry.update((k, v) for k, v in vars(record).items() if k not in self.PLAIN)
        return json.dumps(entry, ensure_ascii=False, default=str) + "\n"


def set_up():
    # A line at a time: what a function printed before it hung is wanted most.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)
    logging.Formatter.converter = time.gmtime
    handler = _Output()
    if os.environ.get("AWS_LAMBDA_LOG_FORMAT", "").upper() == "JSON":
        handler.setFormatter(_JSON())
    else:
        line = "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s\n"
        handler.setFormatter(logging.Formatter(line, "%Y-%m-%dT%H:%M:%S"))
    handler.addFilter(_RequestID())
    root = logging.getLogger()
    root.addHandler(handler)
    level = os.environ.get("AWS_LAMBDA_LOG_LEVEL", "").upper()
    level = {"TRACE": "DEBUG", "WARN": "WARNING", "FATAL": "CRITICAL"}.get(level, level)
    if level in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
        root.setLevel(level)
