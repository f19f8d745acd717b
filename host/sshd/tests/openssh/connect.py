"""Sockets for the scripts of cases.rs.

connect.py PATH            the first bytes from a Unix socket
connect.py SOCKS PORT      those from a port of 127.0.0.1, through a SOCKS proxy on another
connect.py crowd MANY PORT whether some, and not all, of so many connections are greeted
connect.py free            a free port
"""

import socket
import sys

LOCALHOST = "127.0.0.1"


def greeting(stream):
    stream.settimeout(20)
    try:
        return stream.recv(8).decode()
    except ConnectionResetError:
        return ""


match sys.argv[1:]:
    case ["free"]:
        with socket.create_server((LOCALHOST, 0)) as listener:
            print(listener.getsockname()[1])
    case ["crowd", many, port]:
        streams = [socket.create_connection((LOCALHOST, int(port))) for _ in range(int(many))]
        greeted = sum(greeting(stream) == "SSH-2.0-" for stream in streams)
        print("MaxStartups 10:30:100" if 10 <= greeted <= 100 else f"{greeted} of {many}")
    case [proxy, port]:
        stream = socket.create_connection((LOCALHOST, int(proxy)))
        # No authentication; connect to an IPv4 address.
        stream.sendall(b"\x05\x01\x00\x05\x01\x00\x01" + socket.inet_aton(LOCALHOST))
        stream.sendall(int(port).to_bytes(2, "big"))
        stream.settimeout(20)
        answer = stream.recv(2, socket.MSG_WAITALL) + stream.recv(10, socket.MSG_WAITALL)
        print(answer[:4].hex(), greeting(stream))
    case [path]:
        stream = socket.socket(socket.AF_UNIX)
        stream.connect(path)
        print("first bytes:", greeting(stream))
