// Answers that are streamed: the stream that a handler writes to, and the global awslambda that makes such handlers.

import { Writable } from 'node:stream';
import * as requests from './requests.mjs';

const STREAMING = Symbol.for('aws.lambda.runtime.handler.streaming');
const HIGH_WATER_MARK = Symbol.for('aws.lambda.runtime.handler.streaming.highWaterMark');
const WITH_PRELUDE = 'application/vnd.awslambda.http-integration-response';

// isStreaming reports whether a handler was given to awslambda.streamifyResponse.
export function isStreaming(handler) {
  return handler[STREAMING] === 'response';
}

export function highWaterMark(handler) {
  const mark = Number.parseInt(handler[HIGH_WATER_MARK], 10);
  return Number.isNaN(mark) ? undefined : mark;
}

// offerGlobals makes awslambda, which functions find as a global.
export function offerGlobals() {
  globalThis.awslambda = {
    streamifyResponse(handler, options) {
      handler[STREAMING] = 'response';
      if (typeof options?.highWaterMark === 'number') handler[HIGH_WATER_MARK] = options.highWaterMark;
      return handler;
    },
    HttpResponseStream: {
      // from makes the stream an HTTP response: before the first byte go a JSON with status and headers, and eight zero bytes.
      from(stream, prelude) {
        stream.setContentType(WITH_PRELUDE);
        const bytes = Buffer.concat([Buffer.from(JSON.stringify(prelude)), Buffer.alloc(8)]);
        stream._onBeforeFirstWrite = (write) => write(bytes);
        return stream;
      },
    },
  };
}

// ResponseStream is what a handler writes to. The request to the Runtime API begins with the first byte, so that an error
// before that is an ordinary one. Its writes end when the kernel has taken them, which is the back-pressure.
export class ResponseStream extends Writable {
  #connection;
  #id;
  #contentType = 'application/octet-stream';
  #opening; // promises the request to the Runtime API, once it has begun
  #started = false; // the handler has written something

  constructor(connection, id, highWaterMark) {
    super({ highWaterMark, decodeStrings: true });
    this.#connection = connection;
    this.#id = id;
    // Whoever waits for the end learns of errors; a stream without a listener must not take the process down.
    this.on('error', () => {});
  }

  get begun() {
    return this.#opening !== undefined;
  }

  setContentType(type) {
    if (this.#started) {
      throw Object.assign(new Error('Cannot set content-type, too late.'), { name: 'Runtime.InvalidStreamingOperation' });
    }
    // It becomes a header.
    this.#contentType = String(type).replace(/[^\t\x20-\x7e]/g, '');
  }

  write(data, encoding, done) {
    this.#start();
    return super.write(asBytes(data), encoding, done);
  }

  end(data, encoding, done) {
    if (typeof data === 'function') return this.end(undefined, undefined, data);
    if (typeof encoding === 'function') return this.end(data, undefined, encoding);
    if (data !== undefined && data !== null) this.write(data, encoding);
    else if (!this.destroyed) this.#start();
    return super.end(done);
  }

  #start() {
    if (this.#started) return;
    this.#started = true;
    this._onBeforeFirstWrite?.((bytes) => super.write(asBytes(bytes)));
  }

  _write(bytes, _encoding, done) {
    this.#send(bytes, done);
  }

  _writev(pieces, done) {
    this.#send(Buffer.concat(pieces.map((piece) => piece.chunk)), done);
  }

  #send(bytes, done) {
    // An empty chunk would be the end.
    if (bytes.length === 0) return void done();
    this.#begin().then((request) => request.write(requests.chunk(bytes), done), done);
  }

  #begin() {
    this.#opening ??= this.#connection.open(requests.streamHead(this.#id, this.#contentType), (error) => this.destroy(error));
    return this.#opening;
  }

  _final(done) {
    this.#begin().then((request) => void request.finish(requests.STREAM_END, done).catch(() => {})).catch(done);
  }

  // fail ends the request with an error, after what has been written so far. It returns when that is on its
  // way, and with a promise that the Runtime API has taken it.
  async fail(error) {
    this.destroy();
    const request = await this.#begin();
    return { taken: request.finish(requests.streamFailure(error)) };
  }
}

// asBytes: what is neither text nor bytes is written as JSON.
function asBytes(data) {
  return typeof data === 'string' || data instanceof Uint8Array ? data : JSON.stringify(data);
}
