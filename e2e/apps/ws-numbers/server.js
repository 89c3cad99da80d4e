// Answers each message with its number on this connection, its length and its first word, so that a client sees what was
// lost, doubled or out of order. A request is answered with how many there were: the server's memory.
const http = require('http');
const { WebSocketServer } = require('ws');

let requests = 0;
const server = http.createServer((req, res) => res.end(String(++requests)));
const wss = new WebSocketServer({ server });

wss.on('connection', (socket) => {
  let number = 0;
  socket.on('message', (data) => {
    const text = data.toString();
    socket.send(`${++number} ${text.length} ${text.split(' ', 1)[0]}`);
  });
});

server.listen(process.env.PORT);
