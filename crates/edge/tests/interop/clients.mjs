// The conformance server against npm's socket.io-client and engine.io-client: by WebSocket, by long-polling, and
// by long-polling upgraded; text and binary, acks both ways, namespaces, order, heartbeats.
// usage: node clients.mjs http://localhost:PORT   (its packages are looked up from the working directory)
import { createRequire } from "node:module";
import assert from "node:assert/strict";

const require = createRequire(process.cwd() + "/");
const { io } = require("socket.io-client");
const { Socket: Engine } = require("engine.io-client");
const url = process.argv[2];
const TRANSPORTS = [["websocket"], ["polling"], ["polling", "websocket"]];

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const once = (emitter, name) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no ${name} in 5 s`)), 5000);
    emitter.once(name, (...args) => {
      clearTimeout(timer);
      resolve(args);
    });
  });
let passed = 0;
async function fact(name, check) {
  await check();
  passed += 1;
  console.log(`ok  ${name}`);
}

async function socketIo(transports) {
  const by = transports.join(" → ");
  const socket = io(url, { transports, auth: { token: "7|AbC" }, forceNew: true, reconnection: false });
  await fact(`${by}: CONNECT carries the payload`, async () => {
    assert.deepEqual(await once(socket, "auth"), [{ token: "7|AbC" }]);
  });
  if (transports.length === 2) {
    await fact(`${by}: the transport is upgraded`, async () => {
      if (socket.io.engine.transport.name !== "websocket") await once(socket.io.engine, "upgrade");
      assert.equal(socket.io.engine.transport.name, "websocket");
    });
  }
  await fact(`${by}: arguments come back as they were`, async () => {
    const args = [1, "é🚲", { 3: [true, null] }];
    socket.emit("message", ...args);
    assert.deepEqual(await once(socket, "message-back"), args);
  });
  await fact(`${by}: binary goes both ways`, async () => {
    const bytes = Buffer.from([0, 1, 255]);
    socket.emit("message", { file: bytes, more: [bytes] });
    const [back] = await once(socket, "message-back");
    assert(Buffer.from(back.file).equals(bytes) && Buffer.from(back.more[0]).equals(bytes));
    const ack = await socket.timeout(5000).emitWithAck("message-with-ack", bytes);
    assert(Buffer.from(ack).equals(bytes));
  });
  await fact(`${by}: acks go both ways`, async () => {
    assert.deepEqual(await socket.timeout(5000).emitWithAck("message-with-ack", { a: 1 }), { a: 1 });
    const answered = new Promise((resolve) =>
      socket.on("emit-with-ack", (value, ack) => (ack ? ack(value + 1) : resolve(value))),
    );
    socket.emit("emit-with-ack", 41);
    assert.equal(await answered, 42);
  });
  await fact(`${by}: a large message arrives whole`, async () => {
    const large = "x".repeat(900_000);
    assert.equal(await socket.timeout(5000).emitWithAck("message-with-ack", large), large);
  });
  await fact(`${by}: two hundred messages keep their order`, async () => {
    const seen = [];
    const all = new Promise((resolve) =>
      socket.on("message-back", (n) => seen.push(n) === 200 && resolve()),
    );
    for (let n = 0; n < 200; n++) socket.emit("message", n);
    await all;
    assert.deepEqual(seen, [...Array(200).keys()]);
  });
  await fact(`${by}: namespaces share the connection, unknown ones are refused`, async () => {
    const custom = socket.io.socket("/custom");
    await once(custom, "auth");
    custom.emit("message", "c");
    assert.deepEqual(await once(custom, "message-back"), ["c"]);
    const unknown = socket.io.socket("/random");
    assert.equal((await once(unknown, "connect_error"))[0].message, "Invalid namespace");
    custom.disconnect();
  });
  await fact(`${by}: heartbeats keep it alive`, async () => {
    await sleep(1500);
    assert(socket.connected);
  });
  socket.disconnect();
}

async function engineIo(transports) {
  const by = `Engine.IO, ${transports.join(" → ")}`;
  const socket = new Engine(url, { transports, path: "/engine.io/" });
  await once(socket, "open");
  if (transports.length === 2 && socket.transport.name !== "websocket") await once(socket, "upgrade");
  await fact(`${by}: text and binary come back`, async () => {
    socket.send("hello");
    assert.deepEqual((await once(socket, "message"))[0], "hello");
    socket.send(Buffer.from([1, 2]));
    assert.deepEqual(Buffer.from((await once(socket, "message"))[0]), Buffer.from([1, 2]));
  });
  await fact(`${by}: heartbeats keep it alive`, async () => {
    await sleep(1200);
    assert.equal(socket.readyState, "open");
  });
  socket.close();
}

try {
  for (const transports of TRANSPORTS) await socketIo(transports);
  for (const transports of TRANSPORTS) await engineIo(transports);
  console.log(`${passed} passed, 0 failed`);
  process.exit(0);
} catch (error) {
  console.error(error);
  console.log(`${passed} passed, 1 failed`);
  process.exit(1);
}
