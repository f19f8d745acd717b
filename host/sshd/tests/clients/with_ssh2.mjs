// A login with the ssh2 of npm, on which editors and CI tools build: with_ssh2.mjs PORT KEY, the
// password in SSHPASS.
import assert from "node:assert";
import { once } from "node:events";
import { readFileSync, writeFileSync, mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { tmpdir } from "node:os";
import { promisify } from "node:util";
import ssh2 from "ssh2";

const port = Number(process.argv[2]);
const login = { host: "127.0.0.1", port, username: "alice", readyTimeout: 20_000, keepaliveInterval: 500 };

async function connect(options) {
  const client = new ssh2.Client();
  client.connect({ ...login, ...options });
  await once(client, "ready");
  const bound = (name) => promisify(client[name].bind(client));
  for (const name of ["exec", "shell", "sftp", "forwardOut", "forwardIn", "openssh_forwardOutStreamLocal"]) {
    client[`${name}Done`] = bound(name);
  }
  return client;
}

async function output(stream, given) {
  const [out, err] = [[], []];
  stream.on("data", (bytes) => out.push(bytes));
  stream.stderr.on("data", (bytes) => err.push(bytes));
  if (given !== undefined) stream.end(given);
  const [code, signal] = await once(stream, "close");
  return { out: Buffer.concat(out).toString(), err: Buffer.concat(err).toString(), code, signal };
}

const client = await connect({ password: process.env.SSHPASS });
const run = async (command, given, options = {}) => output(await client.execDone(command, options), given);

assert.deepEqual(await run("echo out; echo err >&2; exit 42"), { out: "out\n", err: "err\n", code: 42, signal: undefined });
assert.equal((await run("wc -c", Buffer.alloc(3_000_000))).out.trim(), "3000000");
assert.equal((await run("seq 1 400000")).out.length, 2_688_895);
assert.equal((await run("kill -TERM $$")).signal, "SIGTERM");
assert.match((await run("tty", undefined, { pty: true })).out, /^\/dev\/pts\//);

// Many channels, open at the same time.
const echoes = await Promise.all(Array.from({ length: 40 }, (_, number) => run("cat", `${number}`)));
assert.deepEqual(echoes.map(({ out }) => out), Array.from({ length: 40 }, (_, number) => `${number}`));

const signalled = await client.execDone("trap 'echo caught; exit 9' USR1; echo ready; while :; do sleep 0.1; done");
await once(signalled, "data");
signalled.signal("USR1");
assert.equal((await output(signalled)).code, 9);

const shell = await client.shellDone({ cols: 91, rows: 31 });
let seen = "";
shell.on("data", (bytes) => { seen += bytes; });
for (const [columns, rows] of [[91, 31], [132, 43]]) {
  shell.setWindow(rows, columns, 0, 0);
  shell.write("stty size\r");
  while (!seen.includes(`${rows} ${columns}`)) await once(shell, "data");
}
shell.write("exit 5\r");
assert.equal((await once(shell, "close"))[0], 5);

const here = mkdtempSync(join(tmpdir(), "ssh2-"));
const [up, down] = [join(here, "up"), join(here, "down")];
writeFileSync(up, Buffer.alloc(2_000_000, "0123456789"));
const sftp = await client.sftpDone();
await promisify(sftp.fastPut.bind(sftp))(up, "file");
await promisify(sftp.fastGet.bind(sftp))("file", down);
assert(readFileSync(up).equals(readFileSync(down)));
assert.deepEqual((await promisify(sftp.readdir.bind(sftp))(".")).map(({ filename }) => filename), ["file"]);
rmSync(here, { recursive: true });

const greeting = await client.forwardOutDone("127.0.0.1", 1, "127.0.0.1", port);
assert.equal((await once(greeting, "data"))[0].toString().slice(0, 4), "SSH-");
greeting.destroy();
await assert.rejects(client.openssh_forwardOutStreamLocalDone("/none"));
const listening = await client.forwardInDone("127.0.0.1", 0);
client.once("tcp connection", (_, accept) => accept().end("hello"));
const received = await run(`node -e "require('net').connect(${listening}, '127.0.0.1').pipe(process.stdout)"`);
assert.equal(received.out, "hello");
client.end();
await once(client, "close");

const byKey = await connect({ privateKey: readFileSync(process.argv[3]) });
byKey.end();
await assert.rejects(connect({ password: "wrong" }), /authentication/);
console.log("ssh2");
