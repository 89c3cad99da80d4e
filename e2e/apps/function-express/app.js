// An Express app as one would write it for a server.
const express = require('express');

const app = express();
app.use(express.json());
app.get('/hello/:name', (req, res) => res.set('x-query', req.query.q).cookie('seen', 'yes').send(`hello ${req.params.name}`));
app.post('/sum', (req, res) => res.json({ sum: req.body.numbers.reduce((a, b) => a + b, 0) }));
app.get('/never', () => {});
app.get('/throws', () => { setTimeout(() => { throw new Error('nobody catches this'); }, 5); });
app.get('/picture', (req, res) => res.type('png').send(Buffer.from([0x89, 0x50, 0, 255])));
module.exports = app;
