// A security key (FIDO) for ssh, as an agent: node security-key.mjs SOCKET DIRECTORY
//
// It makes the keys sk-ed25519, sk-ecdsa and sk-untouched, writes their .pub files to the directory,
// and signs what ssh asks it to. The last one signs without a touch. See OpenSSH's PROTOCOL.u2f and
// draft-miller-ssh-agent.
import { createHash, generateKeyPairSync, sign } from "node:crypto";
import { writeFileSync } from "node:fs";
import { createServer } from "node:net";

const [socket, directory] = process.argv.slice(2);
const APPLICATION = "ssh:";
const TOUCHED = 1;
const IDENTITIES = { request: 11, answer: 12 };
const SIGN = { request: 13, answer: 14 };
const FAILURE = 5;

const number = (value) => { const bytes = Buffer.alloc(4); bytes.writeUInt32BE(value); return bytes; };
const string = (value) => { const bytes = Buffer.from(value); return Buffer.concat([number(bytes.length), bytes]); };
const hash = (value) => createHash("sha256").update(value).digest();
// A positive number in the fewest bytes.
const mpint = (bytes) => {
  let from = 0;
  while (bytes[from] === 0) from += 1;
  const rest = bytes.subarray(from);
  return string(rest[0] & 0x80 ? Buffer.concat([Buffer.from([0]), rest]) : rest);
};

function ed25519(name, flags) {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const point = Buffer.from(publicKey.export({ format: "jwk" }).x, "base64url");
  const kind = "sk-ssh-ed25519@openssh.com";
  const blob = Buffer.concat([string(kind), string(point), string(APPLICATION)]);
  return { name, kind, blob, flags, sign: (data) => sign(null, data, privateKey) };
}

function ecdsa(name, flags) {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const { x, y } = publicKey.export({ format: "jwk" });
  const point = Buffer.concat([Buffer.from([4]), Buffer.from(x, "base64url"), Buffer.from(y, "base64url")]);
  const kind = "sk-ecdsa-sha2-nistp256@openssh.com";
  const blob = Buffer.concat([string(kind), string("nistp256"), string(point), string(APPLICATION)]);
  const signature = (data) => {
    const both = sign("sha256", data, { key: privateKey, dsaEncoding: "ieee-p1363" });
    return Buffer.concat([mpint(both.subarray(0, 32)), mpint(both.subarray(32))]);
  };
  return { name, kind, blob, flags, sign: signature };
}

const keys = [ed25519("sk-ed25519", TOUCHED), ecdsa("sk-ecdsa", TOUCHED), ed25519("sk-untouched", 0)];
for (const { name, kind, blob } of keys) {
  writeFileSync(`${directory}/${name}.pub`, `${kind} ${blob.toString("base64")} ${name}\n`);
}

function answer(request) {
  if (request[0] === IDENTITIES.request) {
    const list = keys.flatMap(({ blob, name }) => [string(blob), string(name)]);
    return Buffer.concat([Buffer.from([IDENTITIES.answer]), number(keys.length), ...list]);
  }
  const length = request[0] === SIGN.request ? request.readUInt32BE(1) : 0;
  const key = keys.find(({ blob }) => blob.equals(request.subarray(5, 5 + length)));
  if (!key) return Buffer.from([FAILURE]);
  const data = request.subarray(9 + length, 9 + length + request.readUInt32BE(5 + length));
  const rest = Buffer.concat([Buffer.from([key.flags]), number(1)]);
  const signature = key.sign(Buffer.concat([hash(APPLICATION), rest, hash(data)]));
  return Buffer.concat([Buffer.from([SIGN.answer]), string(Buffer.concat([string(key.kind), string(signature), rest]))]);
}

createServer((stream) => {
  let received = Buffer.alloc(0);
  stream.on("error", () => {});
  stream.on("data", (bytes) => {
    received = Buffer.concat([received, bytes]);
    while (received.length >= 4 && received.length >= 4 + received.readUInt32BE(0)) {
      const end = 4 + received.readUInt32BE(0);
      stream.write(string(answer(received.subarray(4, end))));
      received = received.subarray(end);
    }
  });
}).listen(socket);
