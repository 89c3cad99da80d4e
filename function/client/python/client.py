"""Runs a function's handler: a client of the Lambda Runtime API.

It asks for an event, calls the handler, sends what that returns, and asks for the next. With AWS_LAMBDA_MAX_CONCURRENCY above
1 it does so in that many threads.

Beyond what Lambda has for Python: a handler that is a generator streams its answer. It yields str or bytes; a dict that it
yields first has the status, headers and cookies of an HTTP response.
"""

import os
import sys
import threading
import types

import lull_api
import lull_errors
import lull_handler
import lull_json
import lull_logging
import lull_path
from lull_context import LambdaContext
from lull_errors import RuntimeFailure
from lull_workers import Workers


def main():
    lull_path.set_up(os.environ.get("LAMBDA_TASK_ROOT") or os.getcwd())
    lull_logging.set_up()
    first = lull_api.Connection()
    try:
        handler = lull_handler.load(os.environ.get("_HANDLER", ""))
    except BaseException as error:
        if isinstance(error, SystemExit):
            error = RuntimeFailure("ExitError", f"the function exited with {error.code!r} when it was imported")
        described = lull_errors.describe(error)
        lull_errors.log(described)
        first.call(lull_api.init_failure(described["errorType"], lull_json.encode(described)))
        sys.exit(1)

    try:
        concurrency = int(os.environ.get("AWS_LAMBDA_MAX_CONCURRENCY", "1"))
    except ValueError:
        concurrency = 1
    if concurrency <= 1:
        Client(handler, first, None).run()
    else:
        workers = Workers(lambda: Client(handler, lull_api.Connection(), workers).run())
        workers.run(concurrency)


class Client:
    """Takes events from one connection until the process ends, or its invocation has been given up."""

    def __init__(self, handler, connection, workers):
        self.handler = handler
        self.connection = connection
        self.workers = workers  # None if there is one invocation at a time

    def run(self):
        answer = []
        while True:
            status, headers, body = self.connection.call(*answer, lull_api.NEXT)
            if status != 200:
                raise RuntimeError(f"the Runtime API answered the request for an event with {status}")
            answer = self.invoke(headers, body)
            if self.workers and not self.workers.end():
                self.connection.close()
                return

    def invoke(self, headers, body):
        """Returns the requests that answer, none if the answer was streamed."""
        request_id = headers["lambda-runtime-aws-request-id"]
        if self.workers:
            self.workers.begin(float(headers.get("lambda-runtime-deadline-ms", "inf")) / 1000)
        lull_logging.set_request(request_id, alone=self.workers is None)
        trace = headers.get("lambda-runtime-trace-id")
        if trace:
            os.environ["_X_AMZN_TRACE_ID"] = trace
        else:
            os.environ.pop("_X_AMZN_TRACE_ID", None)
        try:
            context = LambdaContext(headers)
            result = self.handler(lull_json.decode(body), context)
            if isinstance(result, types.GeneratorType):
                return self.stream(request_id, result)
            if isinstance(result, bytes):
                return [lull_api.answer(request_id, result, "application/octet-stream")]
            return [lull_api.answer(request_id, lull_json.encode(result), "application/json")]
        except Exception as error:
            return [self.failed(request_id, error)]
        except SystemExit as error:
            # With others in this process it cannot end; without, it does as with Lambda.
            if self.workers is None:
                raise
            return [self.failed(request_id, RuntimeFailure("ExitError", f"the function exited with {error.code!r}"))]
        finally:
            sys.stdout.flush()

    def failed(self, request_id, error):
        described = lull_errors.describe(error, request_id)
        lull_errors.log(described)
        return lull_api.failure(request_id, described["errorType"], lull_json.encode(described))

    def stream(self, request_id, pieces):
        # An error before the first piece is an ordinary one: nothing has been answered yet.
        first = next(pieces, b"")
        content_type = "application/octet-stream"
        if isinstance(first, dict):
            content_type = "application/vnd.awslambda.http-integration-response"
            first = lull_json.encode(first) + bytes(8)
        connection = self.connection
        connection.write(lull_api.stream_head(request_id, content_type) + _chunk(first))
        try:
            end = self.pour(request_id, pieces)
            connection.finish(end)
        except lull_api.Lost as error:
            # Half an answer cannot be said again.
            lull_errors.log(lull_errors.describe(error, request_id))
            connection.close()
            pieces.close()
        return []

    def pour(self, request_id, pieces):
        """Sends what the handler yields and returns how the answer ends."""
        try:
            for piece in pieces:
                self.connection.write(_chunk(piece))
            return b"0\r\n\r\n"
        except lull_api.Lost:
            raise
        except Exception as error:
            described = lull_errors.describe(error, request_id)
            lull_errors.log(described)
            short = lull_errors.shortened(described)
            return lull_api.stream_failure(short["errorType"], lull_json.encode(short))


def _chunk(piece):
    data = piece.encode() if isinstance(piece, str) else bytes(piece)
    # An empty chunk would be the end.
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


if __name__ == "__main__":
    main()
