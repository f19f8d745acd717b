"""A login with paramiko: with_paramiko.py PORT KEY, the password in SSHPASS."""

import hashlib
import io
import os
import socket
import sys

import paramiko

PORT, KEY = int(sys.argv[1]), sys.argv[2]
BYTES = bytes(range(256)) * 8_000


def connect(**login):
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    client.connect(
        "127.0.0.1", PORT, "alice", timeout=20, allow_agent=False, look_for_keys=False, **login
    )
    return client


def run(client, command, given=b"", **options):
    stdin, stdout, stderr = client.exec_command(command, timeout=60, **options)
    stdin.write(given)
    stdin.channel.shutdown_write()
    return stdout.read(), stderr.read(), stdout.channel.recv_exit_status()


client = connect(password=os.environ["SSHPASS"])
assert run(client, "echo out; echo err >&2; exit 42") == (b"out\n", b"err\n", 42)
digest = hashlib.sha256(BYTES).hexdigest().encode()
assert run(client, "sha256sum", BYTES)[0].split()[0] == digest
assert run(client, "seq 1 300000 | sha256sum; seq 1 300000")[0].count(b"\n") == 300_001
assert run(client, "kill -9 $$")[2] == -1, "a signal is no exit code"
assert b"/dev/pts/" in run(client, "tty", get_pty=True)[0]

# Many channels at the same time, each longer than the time in which they are opened.
channels = [client.exec_command(f"cat; echo {number}") for number in range(40)]
for number, (stdin, stdout, _) in reversed(list(enumerate(channels))):
    stdin.write("x" * 50_000)
    stdin.channel.shutdown_write()
    assert stdout.read() == b"x" * 50_000 + b"%d\n" % number

# A terminal that is resized and interrupted.
shell = client.invoke_shell(width=91, height=31)
shell.settimeout(20)
for size, command in [((91, 31), b"stty size\r"), ((132, 43), b"stty size\r")]:
    shell.resize_pty(*size)
    shell.send(command)
    seen = b""
    while b"%d %d" % (size[1], size[0]) not in seen:
        seen += shell.recv(1_000)
shell.send(b"exit 5\r")
while shell.recv(1_000):
    pass
assert shell.recv_exit_status() == 5

with client.open_sftp() as sftp:
    sftp.putfo(io.BytesIO(BYTES), "up")
    sftp.rename("up", "renamed")
    sftp.chmod("renamed", 0o640)
    assert sftp.stat("renamed").st_mode & 0o777 == 0o640
    down = io.BytesIO()
    sftp.getfo("renamed", down)
    assert down.getvalue() == BYTES
    assert sftp.listdir() == ["renamed"], sftp.listdir()
    sftp.remove("renamed")

# A connection from the pod, and one to it.
transport = client.get_transport()
transport.set_keepalive(1)
forwarded = transport.open_channel("direct-tcpip", ("127.0.0.1", PORT), ("127.0.0.1", 1))
assert forwarded.recv(4) == b"SSH-"
port = transport.request_port_forward("127.0.0.1", 0)
with socket.create_connection(("127.0.0.1", port)) as stream:
    accepted = transport.accept(20)
    stream.sendall(b"hello")
    assert accepted.recv(5) == b"hello"
client.close()

assert run(connect(key_filename=KEY), "echo key")[0] == b"key\n"
interactive = paramiko.Transport(("127.0.0.1", PORT))
interactive.start_client(timeout=20)
interactive.auth_interactive("alice", lambda *_: [os.environ["SSHPASS"]])
assert interactive.is_authenticated()
interactive.close()
try:
    connect(password="wrong")
    raise AssertionError("a wrong password logs in")
except paramiko.AuthenticationException:
    print("paramiko", paramiko.__version__)
