"""Sockets for the scripts of cases.rs.

connect.py PATH            the first bytes from a Unix socket
connect.py SOCKS PORT      those from a port of 127.0.0.1, through a SOCKS proxy on another
connect.py crowd MANY PORT whether some, and not all, of so many connections are open after the first
                           hundred, and no more than a hundred at the end
connect.py beside MANY PORT COMMAND...
                           runs the command when so many connections are open, and keeps them open
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
import subprocess
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


def is_open(stream):
    stream.setblocking(False)
    try:
        while stream.recv(4096):
            pass
    except BlockingIOError:
        return True
    except ConnectionResetError:
        pass
    return False


def held(streams, most):
    """How many are open, once they are no more than that: a server needs a moment to close one."""
    deadline = time.monotonic() + 10
    while (count := sum(map(is_open, streams))) > most and time.monotonic() < deadline:
        time.sleep(0.01)
    return count


def connected(port):
    """Closed, or greeted."""
    stream = socket.create_connection((LOCALHOST, int(port)))
    greeting(stream)
    return stream


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
        # By chance some 55 of the first hundred, five more or less.
        streams = [connected(port) for _ in range(100)]
        first = held(streams, 85)
        streams += [connected(port) for _ in range(int(many) - 100)]
        last = held(streams, 100)
        is_limited = 25 <= first <= 85 and 10 <= last <= 100
        print("MaxStartups 10:30:100" if is_limited else f"{first} of 100, {last} of {many}")
    case ["beside", many, port, *command]:
        streams = []
        # One in a hundred is one more when one is missing.
        for _ in range(10_000):
            streams = [stream for stream in [*streams, connected(port)] if is_open(stream)]
            if len(streams) == int(many):
                break
        sys.exit(subprocess.run(command).returncode)
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
