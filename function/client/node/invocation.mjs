// One invocation: from the event until the answer is on its way. A handler can answer in many ways, and in several at once;
// the first one counts.

import { newContext } from './context.mjs';
import { RuntimeError, describe, log } from './errors.mjs';
import { onEmpty } from './work.mjs';

const NEVER_SETTLED = 'The Lambda runtime client detected an unexpected Node.js exit code. This is most commonly caused by a '
  + 'Promise that was never settled. For more information, see https://nodejs.org/docs/latest/api/process.html#exit-codes';

export class Invocation {
  #reply;
  #end;
  #forget; // stops waiting for the event loop to be empty
  ended = false;
  failWith; // how it fails, if its answer is streamed
  taken; // promises that the end of a streamed answer was taken
  timer; // for an invocation that does not end
  lastCode; // with which the process exits after it

  // event has the headers of the Runtime API, and the event as value, or as JSON in body. reply.answer(result) and
  // reply.failure(error) make what end is called with, once, to end the invocation; the former throws if the result cannot be
  // written. end gets nothing if it needs nothing any more. If alone, the process has only this invocation, and an empty event
  // loop is the end of it.
  constructor(event, alone, reply, end) {
    this.event = event;
    this.#reply = reply;
    this.id = event.headers['lambda-runtime-aws-request-id'];
    this.alone = alone;
    this.#end = end;
  }

  // run calls a handler that answers in one piece.
  run(handler) {
    if (this.alone) this.whenEmpty(() => this.#drained(handler));
    try {
      const context = newContext(this.event.headers);
      const callback = this.#offerCallbacks(context);
      const result = handler(this.value(), context, callback);
      if (typeof result?.then === 'function') result.then((value) => this.answer(value), context.fail);
      else if (!this.alone && !this.ended && handler.length < 3) this.whenEmpty(() => this.answer(null));
    } catch (error) {
      this.fail(error);
    }
  }

  value() {
    return this.event.body === undefined ? this.event.value : JSON.parse(this.event.body);
  }

  // #drained: nothing can answer any more. Lambda tells an async function, whose author meant to answer, from others.
  #drained(handler) {
    if (handler.constructor?.name === 'AsyncFunction') this.fail(new RuntimeError('NodeJsExit', NEVER_SETTLED));
    else this.answer(null);
  }

  #offerCallbacks(context) {
    let called = false;
    const once = (act) => (...args) => {
      if (called) return;
      called = true;
      act(...args);
    };
    const done = (error, result) => (error == null ? this.answer(result) : this.fail(error));
    context.done = once(done);
    context.succeed = once((result) => this.answer(result));
    context.fail = once((error) => this.fail(error ?? 'handled'));
    return once((error, result) => {
      // Other invocations keep the event loop busy: with them it does not say whether this one has finished.
      const wait = error == null && this.alone && context.callbackWaitsForEmptyEventLoop;
      if (wait) this.whenEmpty(() => this.answer(result));
      else done(error, result);
    });
  }

  // whenEmpty replaces what happens when the event loop is empty.
  whenEmpty(act) {
    this.#forget?.();
    this.#forget = this.ended ? undefined : onEmpty(act);
  }

  answer(result) {
    if (this.ended) return;
    let reply;
    try {
      reply = this.#reply.answer(result);
    } catch (error) {
      this.fail(new RuntimeError('MarshalError', `Unable to stringify response body: ${describe(error).errorMessage}`));
      return;
    }
    this.finish(reply);
  }

  fail(error) {
    if (this.ended) return;
    log('Invoke Error', error, this.id);
    this.finish(this.#reply.failure(error));
  }

  // finish ends the invocation with what ends it, or with nothing.
  finish(reply) {
    if (this.ended) return;
    this.ended = true;
    this.#forget?.();
    this.#end(reply);
  }
}
