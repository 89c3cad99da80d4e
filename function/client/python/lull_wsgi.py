"""A WSGI server for apps that have none: wsgiref's, with a thread for each connection, which has one request."""

import signal
import socketserver
import sys
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

IDLE = 75  # s that a client may take to send its request


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 128

    def server_bind(self):
        # WSGIServer asks the name server for the host's own name, which a sandbox need not reach.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]
        self.setup_environ()


class _Handler(WSGIRequestHandler):
    timeout = IDLE

    def get_environ(self):
        return {**super().get_environ(), "wsgi.multithread": True}

    def address_string(self):
        return self.client_address[0]

    def log_message(self, *_):
        """The node logs requests."""


def serve(app, host, port):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with _Server((host, port), _Handler) as server:
        server.set_app(app)
        server.serve_forever()
