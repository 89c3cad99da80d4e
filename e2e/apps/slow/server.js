const http = require('http');

// Every answer takes as long as the client asks for: /?ms=500
const server = http.createServer((req, res) => {
  const ms = Number(new URL(req.url, 'http://localhost').searchParams.get('ms'));
  setTimeout(() => res.end('done\n'), ms);
});

server.listen(process.env.PORT || 8080, () => console.log('ready'));
