"""Errors as the Lambda Runtime API has them, and as they are logged."""

import json
import os
import sys
import traceback

OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep

# The Runtime API takes trailers of 4 KB. In base64, and beside the error's type, that leaves so much for the JSON of an error.
MAX_TRAILED = 2800


class RuntimeFailure(Exception):
    """An error that this client finds, not the function."""

    def __init__(self, kind, message, trace=()):
        super().__init__(message)
        self.error_type = f"Runtime.{kind}"
        self.trace = list(trace)


def describe(error, request_id=""):
    """Returns what is reported of an exception."""
    if isinstance(error, RuntimeFailure):
        return _shape(str(error), error.error_type, request_id, error.trace)
    frames = traceback.extract_tb(error.__traceback__)
    while frames and (frames[0].filename.startswith(OURS) or "importlib" in frames[0].filename):
        frames.pop(0)
    try:
        message = str(error)
    except Exception:
        message = "the exception has no message: its __str__ raises one"
    return _shape(message, type(error).__name__, request_id, traceback.format_list(frames))


def _shape(message, error_type, request_id, trace):
    return {"errorMessage": message, "errorType": error_type, "requestId": request_id, "stackTrace": trace}


def shortened(described):
    """Returns what of a described error fits into a trailer: its type, its message or the beginning of it, and the innermost frames
    of its trace for which there is room."""
    short = {**described, "errorType": described["errorType"][:100], "stackTrace": []}
    while _size(short) > MAX_TRAILED:
        short["errorMessage"] = short["errorMessage"][: len(short["errorMessage"]) // 2]
    room = MAX_TRAILED - _size(short)
    for frame in reversed(described["stackTrace"]):
        more = _size(frame) + 2
        if more <= room:
            short["stackTrace"].insert(0, frame)
            room -= more
    return short


def _size(value):
    return len(json.dumps(value))


def log(described):
    """Writes an error to the log."""
    head = f"[ERROR] {described['errorType']}: {described['errorMessage']}\n"
    trace = "".join(described["stackTrace"])
    if trace:
        head += "Traceback (most recent call last):\n" + trace
    sys.stdout.write(head if head.endswith("\n") else head + "\n")
    sys.stdout.flush()
