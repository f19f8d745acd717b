"""Sockets for the scripts of cases.rs.

connect.py PATH            the first bytes from a Unix socket
connect.py SOCKS PORT      those from a port of 127.0.0.1, through a SOCKS proxy on another
connect.py crowd MANY PORT whether some, and not all, of so many connections are greeted
connect.py free            a free port
connect.py resize ROWS COLUMNS WIDTH HEIGHT
                           gives the terminal this size, in characters and pixels
connect.py window FILE     makes the file, and shows the terminal's size, then as it is after a change,
                           or when there is FILE.end
"""

import fcntl
import os
import socket
import struct
import sys
import termios
import time

LOCALHOST = "127.0.0.1"


def greeting(stream):
    stream.settimeout(20)
    try:
        return stream.recv(8).decode()
    except ConnectionResetError:
        return ""


def window():
    return struct.unpack("HHHH", fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8)))


match sys.argv[1:]:
    case ["free"]:
        with socket.create_server((LOCALHOST, 0)) as listener:
            print(listener.getsockname()[1])
    case ["resize", *size]:
        with open("/dev/tty", "rb", buffering=0) as terminal:
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *map(int, size)))
    case ["window", file]:
        first = window()
        print(*first)
        open(file, "w").close()
        while window() == first and not os.path.exists(f"{file}.end"):
            time.sleep(0.05)
        print(*window())
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
