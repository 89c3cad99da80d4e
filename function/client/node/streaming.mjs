// An invocation of a handler that streams its answer.

import { finished } from 'node:stream/promises';
import { newContext } from './context.mjs';
import { describe, log } from './errors.mjs';
import { ResponseStream, highWaterMark } from './stream.mjs';

// runStreaming is Invocation.run for such a handler.
export async function runStreaming(invocation, handler, connection) {
  const stream = new ResponseStream(connection, invocation.id, highWaterMark(handler));
  const fail = (error) => failStream(invocation, stream, error);
  invocation.failWith = fail;
  if (invocation.alone) invocation.whenEmpty(() => fail(new Error('Response stream is not finished.')));
  try {
    const context = newContext(invocation.event.headers);
    const result = handler(invocation.value(), stream, context);
    if (typeof result?.then !== 'function') {
      fail('Streaming does not support non-async handlers.');
      return;
    }
    if (await result !== undefined) console.warn('Streaming handlers ignore return values.');
    await finished(stream);
    invocation.finish();
  } catch (error) {
    fail(error);
  }
}

// failStream ends the invocation with an error, if it has not ended. What has been answered in full is not taken back.
async function failStream(invocation, stream, error) {
  if (!stream.begun) {
    stream.destroy();
    invocation.fail(error);
    return;
  }
  if (invocation.ended || invocation.failing) return;
  invocation.failing = true;
  log('Invoke Error', error, invocation.id);
  // A stream that is destroyed has lost its connection.
  if (!stream.writableFinished && !stream.destroyed) {
    invocation.taken = (await stream.fail(describe(error)).catch(() => undefined))?.taken;
  }
  invocation.finish();
}
