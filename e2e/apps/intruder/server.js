// Tries from inside an environment what an environment must not be able to do, and reports how it went.
const { spawn } = require('child_process');
const { Resolver } = require('dns').promises;
const fs = require('fs');
const http = require('http');
const net = require('net');
const os = require('os');

const tries = {
  // The beginning of a file, or the names in a directory.
  read({ path }) {
    return fs.statSync(path).isDirectory() ? fs.readdirSync(path) : fs.readFileSync(path, 'latin1').slice(0, 4096);
  },

  write({ path }) {
    fs.writeFileSync(path, 'intruder was here');
    return 'written';
  },

  // Every file system object whose path holds a word.
  find({ word }) {
    const found = [];
    const visit = (dir, depth) => {
      let entries = [];
      try { entries = fs.readdirSync(dir, { withFileTypes: true }); } catch { return; }
      for (const entry of entries) {
        const path = dir === '/' ? `/${entry.name}` : `${dir}/${entry.name}`;
        if (['/proc', '/sys', '/usr'].includes(path)) continue;
        if (path.includes(word)) found.push(path);
        if (entry.isDirectory() && depth < 6) visit(path, depth + 1);
      }
    };
    visit('/', 0);
    return found;
  },

  connect({ host, port }) {
    return new Promise((resolve, reject) => {
      const socket = net.connect({ host, port: Number(port), timeout: 1500 });
      socket.on('connect', () => { socket.destroy(); resolve('connected'); });
      socket.on('timeout', () => { socket.destroy(); reject(new Error('timeout')); });
      socket.on('error', reject);
    });
  },

  // Whether the configured name server answers at all: that it does not know a name is an answer too.
  async resolve({ name }) {
    const resolver = new Resolver({ timeout: 2000, tries: 2 });
    try {
      await resolver.resolve4(name);
    } catch (error) {
      if (!['ENOTFOUND', 'ENODATA', 'ESERVFAIL', 'EREFUSED'].includes(error.code)) throw error;
    }
    return resolver.getServers();
  },

  network() {
    const addresses = Object.values(os.networkInterfaces()).flat().filter((a) => !a.internal).map((a) => a.address);
    const routes = fs.readFileSync('/proc/net/route', 'utf8').split('\n').map((line) => line.split('\t'));
    const gateways = routes.filter((r) => r[1] === '00000000')
      .map((r) => r[2].match(/../g).reverse().map((byte) => parseInt(byte, 16)).join('.'));
    return { addresses, gateways };
  },

  identity() {
    return { uid: process.getuid(), gid: process.getgid(), groups: process.getgroups(), host: os.hostname(), env: process.env };
  },

  // The hogs. Each goes on until something stops it.
  forks() {
    spawn('/bin/sh', ['-c', 'bomb() { bomb | bomb & }; bomb'], { stdio: 'inherit', detached: true }).unref();
    return 'started';
  },

  memory() {
    const hoard = [];
    setInterval(() => hoard.push(Buffer.alloc(16 << 20, hoard.length + 1)), 5);
    return new Promise(() => {});
  },

  disk({ dir }) {
    const block = Buffer.alloc(4 << 20, 'x');
    for (let i = 0; i < 4096; i++) fs.writeFileSync(`${dir}/filler-${i}`, block);
    return 'there was room for 16 GB';
  },

  cpu() {
    for (let i = 0; i < 4; i++) spawn(process.execPath, ['-e', 'for (;;);'], { stdio: 'ignore' });
    return 'started';
  },
};

const server = http.createServer(async (req, res) => {
  const url = new URL(req.url, 'http://localhost');
  const attempt = tries[url.pathname.slice(1)];
  const answer = {};
  try {
    if (attempt) answer.result = await attempt(Object.fromEntries(url.searchParams));
  } catch (error) {
    console.error(`${req.url}: ${error.message}`);
    answer.error = error.code || error.message;
  }
  res.end(JSON.stringify(answer));
});

server.listen(process.env.PORT || 8080);
