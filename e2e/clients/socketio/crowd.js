// Many Socket.IO clients that stay: they begin with polling and upgrade to WebSocket, as by default. It takes orders from
// standard input, one a line ("ask", "say TEXT", "report"), and answers each with a line of JSON.
// Usage: node crowd.js URL ADDRESS CLIENTS; every host name is dialled at ADDRESS.
const dns = require('dns');
const readline = require('readline');
const { io } = require('socket.io-client');

const [url, address, clients] = process.argv.slice(2);
dns.lookup = (host, options, callback) => {
  if (typeof options === 'function') [callback, options] = [options, {}];
  process.nextTick(() => (options.all ? callback(null, [{ address, family: 4 }]) : callback(null, address, 4)));
};

function fail(message) {
  console.error(message);
  process.exit(1);
}

setTimeout(() => fail('the Socket.IO clients were left alone'), 180_000).unref();

const sockets = [];
const disconnects = [];
let heard = 0;
let said = 0;
let asked = 0;

function connect() {
  return new Promise((resolve) => {
    const socket = io(url, { reconnection: false, forceNew: true });
    sockets.push(socket);
    socket.on('connect_error', (error) => fail(`connect: ${error.message}`));
    socket.on('disconnect', (reason) => disconnects.push(reason));
    socket.on('said', (all) => { said = all.length; heard++; });
    socket.on('connect', () => {
      const { engine } = socket.io;
      if (engine.transport.name === 'websocket') resolve();
      else engine.once('upgrade', () => resolve());
    });
  });
}

function report() {
  const connected = sockets.filter((s) => s.connected && s.io.engine.transport.name === 'websocket').length;
  console.log(JSON.stringify({ connected, disconnects, heard, said, asked }));
}

async function obey(line) {
  const [word, ...rest] = line.split(' ');
  if (word === 'ask') asked = await new Promise((resolve) => sockets[0].emit('ask', resolve));
  if (word === 'say') {
    heard = 0;
    sockets[0].emit('say', rest.join(' '));
  }
  report();
}

async function main() {
  for (let i = 0; i < clients; i += 20) {
    await Promise.all(Array.from({ length: Math.min(20, clients - i) }, connect));
  }
  report();
  for await (const line of readline.createInterface({ input: process.stdin })) await obey(line);
  process.exit(0);
}

main().catch((error) => fail(error.stack));
