const express = require('express');

const app = express();
app.use(express.json());

const notes = [];

app.get('/', (req, res) => {
  res.send('<h1>Notes</h1>');
});

app.get('/notes', (req, res) => {
  res.json(notes);
});

app.post('/notes', (req, res) => {
  notes.push(req.body);
  res.status(201).json({ count: notes.length });
});

// What the server makes of a request that came through a proxy.
app.get('/request', (req, res) => {
  res.json({ url: req.originalUrl, host: req.headers.host, headers: req.headers, pid: process.pid });
});

app.listen(3000, '127.0.0.1', () => {
  console.log('listening on http://127.0.0.1:3000');
});
