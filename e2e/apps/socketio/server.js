const { createServer } = require('http');
const { Server } = require('socket.io');

const httpServer = createServer();
const io = new Server(httpServer);

io.on('connection', (socket) => {
  socket.on('join', (room, done) => {
    socket.join(room);
    done(room);
  });
  socket.on('say', (room, text) => {
    io.to(room).emit('said', text);
  });
});

httpServer.listen(3001, () => console.log('socket.io on 3001'));
