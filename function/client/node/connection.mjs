// One connection to the Runtime API.

import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { ResponseReader } from './reader.mjs';

const ATTEMPTS = 50; // the Runtime API is on this machine: if it is away for 5 s, it does not come back
const PAUSE = 100; // ms

// address says where the Runtime API is: at a Unix socket if there is one, which costs less than loopback.
export function address(env) {
  if (env.LULL_RUNTIME_SOCKET) return { path: env.LULL_RUNTIME_SOCKET };
  const api = new URL(`http://${env.AWS_LAMBDA_RUNTIME_API}`);
  return { host: api.hostname.replace(/^\[|\]$/g, ''), port: Number(api.port || 80) };
}

export class Connection {
  #address;
  #socket;
  #connecting;
  #waiting = []; // requests without a response, in the order they were sent
  #closed = false;

  constructor(to) {
    this.#address = to;
  }

  // send sends one request and promises its response. If the connection is lost before that, the request is sent again once:
  // the Runtime API refuses a second answer to an invocation, so this does no harm.
  send(request) {
    const response = this.#expect(request);
    this.#write(request);
    return response;
  }

  // close ends the connection at once; what waits for a response gets none. Nothing is sent after it.
  close() {
    this.#closed = true;
    this.#waiting = [];
    this.#socket?.destroy();
  }

  // open begins a request that is written piece by piece. It cannot be sent again: lost is called if the connection ends, or
  // if the Runtime API answers before all of it has been written.
  async open(head, lost) {
    const socket = await this.#connect();
    const entry = { lost, stream: true };
    entry.done = new Promise((resolve, reject) => Object.assign(entry, { resolve, reject }));
    entry.done.catch(() => {});
    this.#waiting.push(entry);
    socket.write(head);
    return {
      write: (data, done) => socket.write(data, done),
      // finish calls written once the last piece is on its way, and promises the response.
      finish: (data, written) => {
        entry.finished = true;
        socket.write(data, written);
        return entry.done;
      },
    };
  }

  #expect(request) {
    const entry = { request, attempts: 0 };
    const response = new Promise((resolve, reject) => Object.assign(entry, { resolve, reject }));
    this.#waiting.push(entry);
    return response;
  }

  #write(data) {
    // While it connects, what is waiting is sent by #resend.
    if (this.#socket) this.#socket.write(data);
    else this.#resend();
  }

  #resend() {
    if (this.#connecting) return;
    this.#connect().catch((error) => this.#fail(error));
  }

  #connect() {
    if (this.#socket) return Promise.resolve(this.#socket);
    this.#connecting ??= this.#dial().finally(() => { this.#connecting = undefined; });
    return this.#connecting;
  }

  async #dial() {
    for (let attempt = 1; ; attempt++) {
      try {
        const socket = await this.#attempt();
        this.#socket = socket;
        for (const entry of this.#waiting) {
          entry.attempts++;
          socket.write(entry.request);
        }
        return socket;
      } catch (error) {
        if (attempt === ATTEMPTS) throw error;
        await sleep(PAUSE);
      }
    }
  }

  #attempt() {
    return new Promise((resolve, reject) => {
      const reader = new ResponseReader();
      const socket = net.connect({
        ...this.#address,
        noDelay: true,
        // One buffer for all that is read, instead of one for every read.
        onread: {
          buffer: Buffer.allocUnsafeSlow(64 << 10),
          callback: (size, buffer) => {
            this.#received(socket, reader, Buffer.from(buffer.subarray(0, size)));
            return true;
          },
        },
      });
      // Whether the process has something to do is decided by what the function has begun, not by a poll; see work.mjs.
      socket.unref();
      socket.once('connect', () => resolve(socket));
      socket.on('error', (error) => { reject(error); });
      socket.on('close', () => {
        reject(new Error('the Runtime API closed the connection'));
        this.#lost(socket);
      });
    });
  }

  #received(socket, reader, bytes) {
    let responses;
    try {
      responses = reader.push(bytes);
    } catch {
      socket.destroy();
      return;
    }
    for (const response of responses) {
      const entry = this.#waiting[0];
      if (!entry || (entry.stream && !entry.finished)) {
        // An answer to nothing, or one before the end of the question: what follows on this connection is not to be trusted.
        socket.destroy();
        return;
      }
      this.#waiting.shift();
      entry.resolve(response);
    }
  }

  #lost(socket) {
    if (this.#socket !== socket || this.#closed) return;
    this.#socket = undefined;
    const error = new Error('the connection to the Runtime API was lost');
    const kept = [];
    for (const entry of this.#waiting) {
      if (entry.request !== undefined && entry.attempts < 2) kept.push(entry);
      else refuse(entry, error);
    }
    this.#waiting = kept;
    if (kept.length > 0) this.#resend();
  }

  #fail(error) {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const entry of waiting) refuse(entry, error);
  }
}

function refuse(entry, error) {
  entry.lost?.(error);
  entry.reject(error);
}
