// Reads the HTTP/1.1 responses of one connection. It knows what the Runtime API sends and no more: a status, headers, a body
// with a length or in chunks.

const END = Buffer.from('\r\n\r\n');
const MAX_HEAD = 1 << 20; // the client context is a header, and can be large

export class ResponseReader {
  #pieces = []; // what has come and not been read yet
  #size = 0;
  #wanted = 0; // no response can be complete with fewer bytes than these

  // push takes the next bytes from the connection, which it keeps, and returns the responses that are complete with them.
  push(piece) {
    this.#pieces.push(piece);
    this.#size += piece.length;
    if (this.#size < this.#wanted) return [];

    let bytes = this.#pieces.length === 1 ? piece : Buffer.concat(this.#pieces, this.#size);
    const responses = [];
    for (;;) {
      const found = this.#read(bytes);
      if (!found) break;
      responses.push(found.response);
      bytes = bytes.subarray(found.end);
    }
    this.#size = bytes.length;
    this.#pieces = bytes.length > 0 ? [bytes] : [];
    return responses;
  }

  #read(bytes) {
    this.#wanted = 0;
    const end = bytes.indexOf(END);
    if (end < 0) {
      if (bytes.length > MAX_HEAD) throw new Error('the head of a response is too long');
      return undefined;
    }
    const response = parseHead(bytes.utf8Slice(0, end));
    const start = end + END.length;
    if (response.headers['transfer-encoding'] !== undefined) return this.#readChunked(response, bytes, start);

    const length = parseLength(response.headers['content-length'] ?? '0', /^\d{1,15}$/, 10);
    if (bytes.length < start + length) {
      this.#wanted = start + length;
      return undefined;
    }
    response.body = bytes.utf8Slice(start, start + length);
    return { response, end: start + length };
  }

  #readChunked(response, bytes, position) {
    if (response.headers['transfer-encoding'].toLowerCase() !== 'chunked') throw new Error('unknown transfer encoding');
    const chunks = [];
    for (;;) {
      const line = bytes.indexOf('\r\n', position);
      if (line < 0) return undefined;
      const size = parseLength(bytes.latin1Slice(position, line).split(';')[0].trim(), /^[0-9a-fA-F]{1,12}$/, 16);
      const start = line + 2;
      if (size === 0) {
        const end = endOfTrailers(bytes, start);
        if (end < 0) return undefined;
        response.body = Buffer.concat(chunks).toString();
        return { response, end };
      }
      if (bytes.length < start + size + 2) {
        this.#wanted = start + size + 2;
        return undefined;
      }
      chunks.push(bytes.subarray(start, start + size));
      position = start + size + 2;
    }
  }
}

// endOfTrailers returns where the message ends whose last chunk ends before start.
function endOfTrailers(bytes, start) {
  if (bytes.length >= start + 2 && bytes.latin1Slice(start, start + 2) === '\r\n') return start + 2;
  const end = bytes.indexOf(END, start);
  return end < 0 ? -1 : end + END.length;
}

function parseHead(head) {
  const lines = head.split('\r\n');
  const status = /^HTTP\/1\.1 (\d{3})( |$)/.exec(lines[0]);
  if (!status) throw new Error('not an HTTP/1.1 response');
  const headers = {};
  for (let i = 1; i < lines.length; i++) {
    const colon = lines[i].indexOf(':');
    if (colon < 1) throw new Error('a header without a name');
    headers[lines[i].slice(0, colon).toLowerCase()] = lines[i].slice(colon + 1).trim();
  }
  return { status: Number(status[1]), headers, body: '' };
}

function parseLength(text, form, base) {
  if (!form.test(text)) throw new Error('a length that is no number');
  return parseInt(text, base);
}
