// Two Socket.IO clients join a room, upgrade from polling to WebSocket, and talk.
// Usage: node talk.js URL ADDRESS; every host name is dialled at ADDRESS, because not every resolver knows *.localhost.
const dns = require('dns');
const { io } = require('socket.io-client');

const [url, address] = process.argv.slice(2);
dns.lookup = (host, options, callback) => {
  if (typeof options === 'function') [callback, options] = [options, {}];
  process.nextTick(() => (options.all ? callback(null, [{ address, family: 4 }]) : callback(null, address, 4)));
};

function fail(message) {
  console.error(message);
  process.exit(1);
}

setTimeout(() => fail('timed out'), 30_000).unref();

function connect(name) {
  return new Promise((resolve) => {
    const socket = io(url, { reconnection: false, forceNew: true });
    const transports = [];
    const ready = () => { if (transports.length === 2 && socket.connected) resolve({ name, socket, transports }); };
    socket.on('connect', ready);
    socket.on('connect_error', (error) => fail(`${name}: connect: ${error.message}`));
    socket.on('disconnect', (reason) => { if (!socket.leaving) fail(`${name}: disconnected: ${reason}`); });
    socket.io.on('open', () => {
      const { engine } = socket.io;
      transports.push(engine.transport.name);
      engine.once('upgrade', (transport) => {
        transports.push(transport.name);
        ready();
      });
    });
  });
}

async function main() {
  const [first, second] = await Promise.all([connect('first'), connect('second')]);
  for (const { socket } of [first, second]) {
    await new Promise((resolve) => socket.emit('join', 'lobby', resolve));
  }
  const heard = new Promise((resolve) => second.socket.on('said', resolve));
  first.socket.emit('say', 'lobby', 'hello');
  const text = await heard;
  console.log(JSON.stringify({ first: first.transports, second: second.transports, text }));
  for (const { socket } of [first, second]) {
    socket.leaving = true;
    socket.close();
  }
}

main().catch((error) => fail(error.stack));
