// Takes HTTP requests for a handler that answers in one piece, without the detour by the Runtime API, which in a sandbox costs
// as much time again as all the rest. What can go wrong is what can go wrong there, and ends the same.

import { randomUUID } from 'node:crypto';
import http from 'node:http';
import { AnswerError, answerOf } from './answer.mjs';
import { describe } from './errors.mjs';
import { eventOf } from './event.mjs';
import { Invocation } from './invocation.mjs';
import { printable } from './requests.mjs';

const { env } = process;
const MESSAGES = { 413: 'Request Too Long', 502: 'Internal Server Error', 503: 'Service Unavailable', 504: 'Endpoint request timed out' };
const MAX_HEAD = 1 << 20;

// listen opens the port that settings names, and resolves once it is open. If it cannot be, nothing is lost: requests then come
// by the Runtime API. settings are { port, timeout (ms), request, response (bytes) }. start(invocation, run) calls run when it
// is the invocation's turn; done(invocation, sent) is called after it, with a promise for the end of its answer. quit is called
// before the answer to the last one: the process is about to end, and must not be handed another.
export function listen(settings, handler, { alone, start, quit, done }) {
  const server = http.createServer({ maxHeaderSize: MAX_HEAD, requestTimeout: 0, headersTimeout: 0, keepAliveTimeout: 0 });
  server.maxHeadersCount = 0;
  const waiting = new Set(); // invocations whose turn has not come
  // Who comes from now on is to find out at once that the process ends, and goes to the runtime.
  let closing = false;
  const close = () => {
    closing = true;
    quit();
    server.close();
    for (const invocation of waiting) invocation.finish(notBegun());
  };
  // Connections do not keep the event loop busy: see work.mjs.
  server.on('connection', (socket) => socket.unref());
  server.on('request', (request, response) => read(request, response, settings.request, (body) => {
    if (closing) {
      send(response, notBegun(), true);
      return;
    }
    const id = randomUUID();
    const event = { headers: headersOf(request, id, settings), value: eventOf(request, body, { app: env.AWS_LAMBDA_FUNCTION_NAME, id, now: new Date() }) };
    const sent = new Promise((resolve) => { response.once('close', resolve).once('finish', resolve); });
    const invocation = new Invocation(event, alone, replies(id, settings.response), (answer) => {
      waiting.delete(invocation);
      if (invocation.lastCode) close();
      send(response, answer, closing);
      done(invocation, sent);
    });
    waiting.add(invocation);
    // Its time runs from here, also while it waits for its turn. A process that has no other invocation is ended with one that is
    // late, as it may never come back.
    invocation.timer = setTimeout(() => {
      if (alone && !waiting.has(invocation)) invocation.lastCode = 1;
      invocation.finish(late(id, settings.timeout));
    }, settings.timeout).unref();
    start(invocation, () => {
      waiting.delete(invocation);
      if (invocation.ended) done(invocation, sent);
      else if (response.destroyed) invocation.finish(); // its client left
      else invocation.run(handler);
    });
  }));
  return new Promise((resolve) => {
    server.once('error', resolve);
    server.listen(settings.port, '0.0.0.0', resolve).unref();
  });
}

// read calls taken with the body of a request.
function read(request, response, limit, taken) {
  if (request.headers['content-length'] === undefined && request.headers['transfer-encoding'] === undefined) {
    taken(Buffer.alloc(0));
    return;
  }
  const pieces = [];
  let size = 0;
  request.on('data', (piece) => {
    size += piece.length;
    if (size <= limit) pieces.push(piece);
    else pieces.length = 0; // the rest is thrown away, so that the client hears of it
  });
  request.on('end', () => {
    if (size <= limit) taken(pieces.length === 1 ? pieces[0] : Buffer.concat(pieces, size));
    else send(response, refusal(413, 'RequestTooLargeException', `the request is larger than ${limit} bytes`));
  });
  request.on('error', () => {}); // its client left
}

// headersOf are what the Runtime API says of an invocation besides its event.
function headersOf(request, id, settings) {
  return {
    'lambda-runtime-aws-request-id': id,
    'lambda-runtime-deadline-ms': Date.now() + settings.timeout,
    'lambda-runtime-invoked-function-arn': settings.arn,
    'lambda-runtime-trace-id': traceOf(request),
  };
}

function traceOf(request) {
  const given = request.headers['x-amzn-trace-id'];
  if (given && given.length < 512) return given;
  const random = randomUUID().replaceAll('-', '');
  const seconds = Math.floor(Date.now() / 1000).toString(16).padStart(8, '0');
  return `Root=1-${seconds}-${random.slice(8)};Parent=${random.slice(0, 8)}${random.slice(24)};Sampled=0`;
}

// replies are how an invocation answers: see Invocation.
function replies(id, limit) {
  return {
    answer(result) {
      try {
        return answerOf(result, limit);
      } catch (error) {
        if (!(error instanceof AnswerError)) throw error;
        return refusal(502, error.type, `RequestId: ${id} Error: the function's answer cannot be sent: ${error.message}`);
      }
    },
    failure: (error) => refusal(502, describe(error).errorType),
  };
}

function late(id, timeout) {
  return refusal(504, 'Sandbox.Timedout', `${id} Task timed out after ${(timeout / 1000).toFixed(2)} seconds`);
}

// refusal is what the client gets instead of an answer. What was wrong is for the log only.
function refusal(status, type, reason) {
  if (reason !== undefined) process.stderr.write(`${type}: ${reason.replace(/[\x00-\x1f\x7f]/g, ' ').slice(0, 2000)}\n`);
  return { status, headers: ['Content-Type', 'application/json', 'X-Amzn-Errortype', printable(type)], body: `{"message":"${MESSAGES[status]}"}\n` };
}

// notBegun is for one whose turn does not come any more. The gateway sends it again where it can, which then finds the runtime,
// and waits there for the next process.
function notBegun() {
  const answer = refusal(503, 'TooManyRequestsException');
  answer.headers.push('Lull-Error', 'not-begun', 'Retry-After', '1');
  return answer;
}

function send(response, answer, last) {
  if (!answer || response.destroyed) return;
  const { status, headers, body } = answer;
  if (last) headers.push('Connection', 'close');
  if (status === 204 || status === 304) {
    response.writeHead(status, headers).end();
    return;
  }
  headers.push('Content-Length', Buffer.byteLength(body));
  response.writeHead(status, headers).end(body);
}
