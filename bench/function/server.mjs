// The same handler behind Node's own HTTP server.
import { createServer } from 'node:http';
import { handler } from './index.mjs';

createServer(async (request, response) => {
  const answer = await handler({ rawPath: request.url });
  response.writeHead(answer.statusCode, answer.headers).end(answer.body);
}).listen(process.env.PORT);
