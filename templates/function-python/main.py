"""A function: it gets an event and answers. An HTTP request is an event, too, in AWS's payload format 2.0."""

import html

# Memory outlives an event, and a sleep; only a new environment begins again.
visits = 0


def handler(event, context):
    global visits
    visits += 1
    name = (event.get("queryStringParameters") or {}).get("name", "you")
    return {
        "statusCode": 200,
        "headers": {"content-type": "text/html; charset=utf-8"},
        "body": f"<!doctype html><title>Hello</title><h1>Hello, {html.escape(name)}</h1><p>Visit {visits}.</p>\n",
    }
