// An app that loads what real apps load. It answers with a word, once everything is there.
const { createServer } = require('http');
const axios = require('axios');
const express = require('express');
const session = require('express-session');
const _ = require('lodash');
const moment = require('moment');
const { Server } = require('socket.io');
const { z } = require('zod');

const shape = z.object({ hello: z.string() });
const client = axios.create({ timeout: 1000 });

const app = express();
app.use(session({ secret: 'only for measuring', resave: false, saveUninitialized: false }));
app.get('/', (req, res) => {
  const { hello } = shape.parse({ hello: _.toLower('HELLO') });
  if (!moment(0).isValid() || client.defaults.timeout !== 1000) throw new Error('a dependency is broken');
  res.send(hello + '\n');
});

const server = createServer(app);
new Server(server);
server.listen(process.env.PORT);
