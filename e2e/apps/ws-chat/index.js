const http = require('http');
const { WebSocketServer } = require('ws');

const started = Date.now();

const server = http.createServer((req, res) => {
  res.setHeader('Content-Type', 'text/html');
  res.end(`<title>chat</title><p>up since ${new Date(started).toISOString()}</p>`);
});

const wss = new WebSocketServer({ server });

wss.on('connection', (socket) => {
  socket.send(JSON.stringify({ type: 'welcome', people: wss.clients.size }));
  socket.on('message', (data) => {
    for (const client of wss.clients) {
      client.send(JSON.stringify({ type: 'message', text: data.toString() }));
    }
  });
});

// A timer such as many servers have: while the environment is paused it must not run.
setInterval(() => { server.getConnections(() => {}); }, 100);

server.listen(process.env.PORT || 8080);
