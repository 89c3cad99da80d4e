const http = require('http');

const listeners = new Set();
let next = 1;

const server = http.createServer((req, res) => {
  if (req.url === '/events') {
    res.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-cache' });
    res.write('retry: 1000\n\n');
    listeners.add(res);
    res.on('close', () => listeners.delete(res));
    return;
  }
  if (req.method === 'POST' && req.url === '/publish') {
    let text = '';
    req.on('data', (chunk) => { text += chunk; });
    req.on('end', () => {
      for (const listener of listeners) listener.write(`id: ${next}\ndata: ${text}\n\n`);
      next++;
      res.end(JSON.stringify({ listeners: listeners.size }));
    });
    return;
  }
  res.end(JSON.stringify({ listeners: listeners.size }));
});

server.listen(process.env.PORT);
