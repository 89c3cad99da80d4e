const crypto = require('crypto');
const http = require('http');
const { Readable } = require('stream');
const { pipeline } = require('stream/promises');

// One block of numbered lines, sent again and again.
const block = Buffer.from(Array.from({ length: 8192 }, (_, i) => `${String(i).padStart(7, '0')}\n`).join(''));

function* blocks(total) {
  for (let left = total; left > 0; left -= block.length) {
    yield left >= block.length ? block : block.subarray(0, left);
  }
}

async function download(url, res) {
  const bytes = Number(url.searchParams.get('bytes'));
  res.writeHead(200, { 'Content-Type': 'application/octet-stream', 'Content-Length': bytes });
  await pipeline(Readable.from(blocks(bytes)), res);
}

async function upload(req, res) {
  const hash = crypto.createHash('sha256');
  let bytes = 0;
  for await (const chunk of req) {
    bytes += chunk.length;
    hash.update(chunk);
  }
  res.end(JSON.stringify({ bytes, sha256: hash.digest('hex') }));
}

const server = http.createServer(async (req, res) => {
  const url = new URL(req.url, 'http://localhost');
  try {
    if (url.pathname === '/down') return await download(url, res);
    if (url.pathname === '/up') return await upload(req, res);
    res.end(JSON.stringify(process.memoryUsage()));
  } catch (error) {
    console.error(req.url, error.message);
    res.destroy();
  }
});

server.listen(process.env.PORT);
