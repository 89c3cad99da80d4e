"""Answers as JSON."""

import decimal
import json
import re
import uuid

from lull_errors import RuntimeFailure

# A Decimal becomes a number with all its digits, as with Lambda. The encoder has no way to say so: a string takes its place
# first. The mark is drawn anew in every process, so that nobody can answer with it.
MARK = f"decimal-{uuid.uuid4()}:"
MARKED = re.compile(f'"{MARK}([^"]*)"')


def _default(value):
    if isinstance(value, decimal.Decimal):
        if value.is_nan():
            return float("nan")
        return MARK + str(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def encode(value):
    """Returns the bytes of an answer."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=_default)
        if MARK in text:
            text = MARKED.sub(r"\1", text)
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, default=_default).encode()
    except Exception as error:
        raise RuntimeFailure("MarshalError", f"Unable to marshal response: {error}") from error


def decode(body):
    try:
        return json.loads(body)
    except ValueError as error:
        raise RuntimeFailure("UnmarshalError", f"Unable to unmarshal input: {error}") from error
