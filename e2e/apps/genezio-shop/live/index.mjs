import { createServer } from 'node:http';
import { Server } from 'socket.io';

const server = createServer();
const io = new Server(server);
io.on('connection', (socket) => {
  socket.on('join', (room, joined) => { socket.join(room); joined(); });
  socket.on('say', (room, text) => io.to(room).emit('said', text));
});
server.listen(5000);
