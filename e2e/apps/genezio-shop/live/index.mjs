import { createServer } from 'node:http';
import { Server } from 'socket.io';

const server = createServer();
new Server(server).on('connection', (socket) => socket.on('say', (text, reply) => reply(`you said ${text}`)));
server.listen(5000);
