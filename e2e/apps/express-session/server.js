const express = require('express');
const session = require('express-session');

const app = express();
// The default store: in memory.
app.use(session({ secret: 'only for tests', resave: false, saveUninitialized: true }));

app.get('/', (req, res) => {
  req.session.visits = (req.session.visits || 0) + 1;
  res.json({ visits: req.session.visits });
});

app.listen(process.env.PORT);
