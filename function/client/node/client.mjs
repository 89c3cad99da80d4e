// Runs a function's handler: a client of the Lambda Runtime API. It asks for an event, calls the handler, sends what that
// answers, and asks for the next. With AWS_LAMBDA_MAX_CONCURRENCY above 1 it does so that many times at once, each over a
// connection of its own.

import { AsyncLocalStorage } from 'node:async_hooks';
import { Connection, address } from './connection.mjs';
import { RuntimeError, describe, log } from './errors.mjs';
import { load } from './handler.mjs';
import { listen } from './http.mjs';
import { Invocation } from './invocation.mjs';
import { isStreaming, offerGlobals } from './stream.mjs';
import { runStreaming } from './streaming.mjs';
import { onEmpty } from './work.mjs';
import * as requests from './requests.mjs';

// Exit codes as Lambda's own client has them.
const EXIT_EXCEPTION = 129;
const EXIT_REJECTION = 128;
const MAX_TIMER = 2 ** 31 - 1; // ms
const GRACE = 500; // ms that the Runtime API has to find out first that an invocation is late
const LAST_WORDS = 2000; // ms that a process waits for its last request to be taken

const { env } = process;
const concurrency = Math.max(1, Number.parseInt(env.AWS_LAMBDA_MAX_CONCURRENCY, 10) || 1);
const alone = concurrency === 1;

// Which invocation an error belongs to. Keeping track costs time at every promise, and is not needed if there is only one.
const owners = alone ? undefined : new AsyncLocalStorage();
let current; // the invocation, if there is only one
const turns = []; // begin those that wait for it to end

const first = new Connection(address(env));
let started = false;

process.on('uncaughtException', (error) => {
  log('Uncaught Exception', error, owner()?.id);
  thrown(error, EXIT_EXCEPTION);
});

process.on('unhandledRejection', (reason, promise) => {
  const error = new RuntimeError('UnhandledPromiseRejection', text(reason));
  Object.assign(error, { reason, promise });
  log('Unhandled Promise Rejection', error, owner()?.id);
  thrown(error, EXIT_REJECTION);
});

function owner() {
  return alone ? current : owners.getStore();
}

// thrown: nobody caught an error. If there is only one invocation, it fails and the process ends, as with Lambda. If there are
// others they go on, and the one to which the error belongs fails.
function thrown(error, code) {
  if (!started) {
    leave(first.send(requests.initFailure(describe(error))), code);
    return;
  }
  const invocation = owner();
  if (!alone) {
    if (invocation) failInvocation(invocation, error);
    return;
  }
  if (!invocation) process.exit(code);
  invocation.lastCode = code;
  failInvocation(invocation, error);
}

function failInvocation(invocation, error) {
  if (invocation.failWith) invocation.failWith(error);
  else invocation.fail(error);
}

// leave ends the process once the Runtime API has taken its last request.
function leave(taken, code) {
  const exit = () => process.exit(code);
  setTimeout(exit, LAST_WORDS);
  taken.then(exit, exit);
}

function text(value) {
  try {
    return String(value);
  } catch {
    return describe(value).errorMessage;
  }
}

// start runs an invocation: at once, or, if the process works at one only, after those that came before.
function start(invocation, run) {
  if (alone && current) {
    turns.push(() => start(invocation, run));
    return;
  }
  const trace = invocation.event.headers['lambda-runtime-trace-id'];
  if (trace) env._X_AMZN_TRACE_ID = trace;
  else if (env._X_AMZN_TRACE_ID !== undefined) delete env._X_AMZN_TRACE_ID;
  if (alone) {
    current = invocation;
    run();
  } else owners.run(invocation, run);
}

// over is called at the end of an invocation. If the process is to end with it, no other begins.
function over(invocation) {
  clearTimeout(invocation.timer);
  if (current !== invocation || invocation.lastCode) return;
  current = undefined;
  if (turns.length > 0) setImmediate(turns.shift());
}

// serve takes events from one connection until the process ends.
function serve(connection, handler) {
  const streaming = isStreaming(handler);

  const poll = (response) => response.then(take).catch((error) => {
    log('The Runtime API does not answer', error);
    process.exit(1);
  });

  // Any other Runtime API than Lull's just takes the answer.
  const askedNext = (response) => ('lambda-runtime-aws-request-id' in response.headers ? response : connection.send(requests.NEXT));

  const take = (event) => {
    if (event.status !== 200) throw new Error(`the Runtime API answered the request for an event with ${event.status}`);
    const id = event.headers['lambda-runtime-aws-request-id'];
    const reply = {
      // Of what JSON has no word for, functions among them, nothing is left.
      answer: (result) => requests.answer(id, JSON.stringify(result) ?? 'null'),
      failure: (error) => requests.failure(id, describe(error)),
    };
    const invocation = new Invocation(event, alone, reply, (request) => {
      over(invocation);
      if (invocation.lastCode) leave(request ? connection.send(request) : Promise.resolve(invocation.taken), invocation.lastCode);
      else poll(request ? connection.send(requests.andNext(request)).then(askedNext) : connection.send(requests.NEXT));
    });
    if (!alone) giveUpLate(invocation);
    start(invocation, () => (streaming ? runStreaming(invocation, handler, connection) : invocation.run(handler)));
  };

  poll(connection.send(requests.NEXT));
}

// giveUpLate frees the place of an invocation that does not end: by then the Runtime API has told its caller. Without others
// there is no need: the process is ended.
function giveUpLate(invocation) {
  const left = Number(invocation.event.headers['lambda-runtime-deadline-ms']) - Date.now();
  if (!(left < MAX_TIMER - GRACE)) return;
  const late = () => failInvocation(invocation, new RuntimeError('Timeout', 'the invocation did not end in time'));
  invocation.timer = setTimeout(late, Math.max(left, 0) + GRACE).unref();
}

offerGlobals();
const forget = onEmpty(() => thrown(new RuntimeError('NodeJsExit', 'the function waits, at the top level of a module, for what never comes'), EXIT_EXCEPTION));
const handler = await load(env.LAMBDA_TASK_ROOT ?? process.cwd(), env._HANDLER ?? '');
forget();
started = true;
const connections = Array.from({ length: concurrency }, (_, i) => (i === 0 ? first : new Connection(address(env))));
if (env.LULL_FUNCTION_HTTP && !isStreaming(handler)) {
  const quit = () => connections.forEach((connection) => connection.close());
  const done = (invocation, sent) => {
    over(invocation);
    if (invocation.lastCode) leave(sent, invocation.lastCode);
  };
  await listen(JSON.parse(env.LULL_FUNCTION_HTTP), handler, { alone, start, quit, done });
}
for (const connection of connections) serve(connection, handler);
