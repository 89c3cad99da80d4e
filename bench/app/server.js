const http = require('http');
const os = require('os');

const server = http.createServer((req, res) => {
  if (req.url === '/address') {
    const addresses = Object.values(os.networkInterfaces()).flat();
    return res.end(addresses.find((a) => !a.internal && a.family === 'IPv4').address);
  }
  res.end('hello\n');
});

server.listen(process.env.PORT);
