// Submit a signed script to a running worker and wait for its result: in Node, with its own modules alone.
//
// node examples/submit_signed.mjs 127.0.0.1 6379 key.pem 02abc '40 + 2'
//
// The key is of ed25519 or secp256k1, in PEM: `rhai-tasks keys new key.pem`, or
// `openssl genpkey -algorithm ed25519 -out key.pem`. docs/protocol.md describes the signed form.

import crypto from 'node:crypto';
import fs from 'node:fs';
import net from 'node:net';

const ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n; // of secp256k1

/** Return a private key's scheme, and its public key in hex. */
function describe(key) {
  const { x, y } = crypto.createPublicKey(key).export({ format: 'jwk' });
  const first = Buffer.from(x, 'base64url').toString('hex');
  if (key.asymmetricKeyType === 'ed25519') return ['ed25519', first];
  const isOdd = Buffer.from(y, 'base64url').at(-1) & 1;
  return ['secp256k1', (isOdd ? '03' : '02') + first];
}

/** Return the bytes that are signed. All values of `details` are signed fields. */
function signedForm(taskId, circle, details) {
  const parts = Object.entries({ ...details, taskId, circle }).map((part) => part.map((text) => Buffer.from(text)));
  parts.sort(([one], [other]) => Buffer.compare(one, other));
  const chunks = [Buffer.from('rhai-tasks signed task 1\n')];
  for (const bytes of parts.flat()) {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(bytes.length);
    chunks.push(length, bytes);
  }
  return Buffer.concat(chunks);
}

/** Sign bytes; return the signature in hex. */
function sign(key, form) {
  if (key.asymmetricKeyType === 'ed25519') return crypto.sign(null, form, key).toString('hex');
  const found = crypto.sign('sha256', form, { key, dsaEncoding: 'ieee-p1363' }).toString('hex');
  const s = BigInt(`0x${found.slice(64)}`);
  const low = s > ORDER / 2n ? ORDER - s : s;
  return found.slice(0, 64) + low.toString(16).padStart(64, '0');
}

/** Send a command to the server; return its reply, as text. */
function command(socket, ...words) {
  const encoded = words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join('');
  socket.write(`*${words.length}\r\n${encoded}`);
  return new Promise((resolve) => socket.once('data', (reply) => resolve(reply.toString())));
}

const [host, port, file, circle, script] = process.argv.slice(2);
const key = crypto.createPrivateKey(fs.readFileSync(file));
const [signatureScheme, callerId] = describe(key);
const taskId = crypto.randomUUID();
const details = { script, callerId, signatureScheme, signedAt: new Date().toISOString() };
const signature = sign(key, signedForm(taskId, circle, details));

const socket = net.connect(Number(port), host);
const fields = Object.entries({ ...details, signature, status: 'pending' }).flat();
await command(socket, 'HSET', `rhai_task_details:${taskId}`, ...fields);
await command(socket, 'LPUSH', `rhai_tasks:${circle}`, taskId);
for (;;) {
  const status = await command(socket, 'HGET', `rhai_task_details:${taskId}`, 'status');
  const ended = /completed|error/.exec(status);
  if (ended) {
    const field = ended[0] === 'completed' ? 'output' : 'error';
    console.log((await command(socket, 'HGET', `rhai_task_details:${taskId}`, field)).split('\r\n')[1]);
    break;
  }
  await new Promise((resolve) => setTimeout(resolve, 10));
}
socket.end();
