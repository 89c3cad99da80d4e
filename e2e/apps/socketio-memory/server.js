// Everything it knows is in memory: what was said, and how often each client has asked. Heartbeats are faster than the
// defaults (25 s and 20 s), so that a test need not sleep for minutes.
const { createServer } = require('http');
const { Server } = require('socket.io');

const httpServer = createServer((req, res) => res.end(JSON.stringify({ said: said.length, clients: io.engine.clientsCount })));
const io = new Server(httpServer, { pingInterval: 1000, pingTimeout: 1000 });

const said = [];

io.on('connection', (socket) => {
  let asked = 0;
  socket.on('ask', (done) => done(++asked));
  socket.on('say', (text) => {
    said.push(text);
    io.emit('said', said);
  });
});

httpServer.listen(process.env.PORT);
