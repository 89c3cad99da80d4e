const express = require('express');

const app = express();
app.get('/', (req, res) => res.json({ self: process.env.SELF, dir: process.cwd() }));
app.listen(3000, '127.0.0.1');
