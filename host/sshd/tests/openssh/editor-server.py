"""What an editor would start in a pod: answers in capitals on a port and a Unix socket.

editor-server.py SOCKET
"""

import os
import socketserver
import sys
import threading


class Capitals(socketserver.BaseRequestHandler):
    def handle(self):
        while piece := self.request.recv(65_536):
            self.request.sendall(piece.upper())


class TcpServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128


class UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 128


tcp, unix = TcpServer(("127.0.0.1", 0), Capitals), UnixServer(sys.argv[1], Capitals)
threading.Thread(target=unix.serve_forever, daemon=True).start()
print(f"listening on {tcp.server_address[1]}, process {os.getpid()}", flush=True)
tcp.serve_forever()
