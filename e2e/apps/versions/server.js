const http = require('http');
const { version } = require('./package.json');

const block = Buffer.alloc(64 * 1024, version[0]);

// A download that takes its time: ?blocks=50&every=100
async function download(url, res) {
  const [blocks, every] = ['blocks', 'every'].map((name) => Number(url.searchParams.get(name)));
  res.writeHead(200, { 'Content-Type': 'application/octet-stream', 'Content-Length': blocks * block.length });
  for (let i = 0; i < blocks && !res.destroyed; i++) {
    res.write(block);
    await new Promise((resolve) => setTimeout(resolve, every));
  }
  res.end();
}

const server = http.createServer((req, res) => {
  const url = new URL(req.url, 'http://localhost');
  if (url.pathname === '/download') return download(url, res);
  res.end(version);
});

server.listen(process.env.PORT, () => console.log(`version ${version}`));
