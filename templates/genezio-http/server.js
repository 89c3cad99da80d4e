// An Express server on a port of its own choice.
const express = require('express');

const app = express();
let visits = 0;

app.get('/', (request, response) => {
  response.send(`<!doctype html><title>Hello</title><h1>Hello from Express</h1><p>Visit ${++visits}.</p>\n`);
});

app.listen(process.env.PORT ?? 8080);
