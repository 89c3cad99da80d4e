// The requests of the Runtime API, as the text that is written to a connection. All but the streamed answer are in one piece.

const ROOT = '/2018-06-01/runtime';
const FIXED = 'Host: runtime\r\nUser-Agent: lull-node\r\n';

export const NEXT = `GET ${ROOT}/invocation/next HTTP/1.1\r\n${FIXED}\r\n`;

// andNext makes what answers a request the next event, where the Runtime API is Lull's. It saves waking this process once.
export function andNext(request) {
  const line = request.indexOf('\r\n');
  return `${request.slice(0, line)}\r\nLull-Next: 1${request.slice(line)}`;
}

function post(path, headers, body) {
  return `POST ${ROOT}${path} HTTP/1.1\r\n${FIXED}${headers}Content-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
}

export function answer(id, body) {
  return post(`/invocation/${encodeURIComponent(id)}/response`, '', body);
}

export function failure(id, error) {
  return post(`/invocation/${encodeURIComponent(id)}/error`, errorType(error), JSON.stringify(error));
}

export function initFailure(error) {
  return post('/init/error', errorType(error), JSON.stringify(error));
}

// errorType is a header: the function chose its value, which must not end the header.
function errorType(error) {
  return `Lambda-Runtime-Function-Error-Type: ${printable(error.errorType)}\r\n`;
}

// printable makes a header's value of anything.
export function printable(text) {
  return encodeURI(text.toWellFormed?.() ?? text.replace(/[\ud800-\udfff]/g, '?')).replace(/%20/g, ' ');
}

export function streamHead(id, contentType) {
  return `POST ${ROOT}/invocation/${encodeURIComponent(id)}/response HTTP/1.1\r\n${FIXED}`
    + 'Lambda-Runtime-Function-Response-Mode: streaming\r\nTransfer-Encoding: chunked\r\n'
    + 'Trailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\r\n'
    + `Content-Type: ${contentType}\r\n\r\n`;
}

export function chunk(bytes) {
  return Buffer.concat([Buffer.from(`${bytes.length.toString(16)}\r\n`), bytes, Buffer.from('\r\n')]);
}

export const STREAM_END = '0\r\n\r\n';

// The Runtime API takes trailers of 4 KB. In base64, and beside the error's type, which may be 900 bytes as a header, that
// leaves so much for the JSON of the error.
const MAX_TRAILED = 2300;

export function streamFailure(error) {
  const short = shortened(error);
  const body = Buffer.from(JSON.stringify(short)).toString('base64');
  return `0\r\n${errorType(short)}Lambda-Runtime-Function-Error-Body: ${body}\r\n\r\n`;
}

// shortened is what of an error fits: its type, its message or the beginning of it, and the lines of its trace for which there
// is room.
function shortened({ errorType, errorMessage, trace }) {
  const short = { errorType: errorType.slice(0, 100), errorMessage, trace: [] };
  while (size(short) > MAX_TRAILED) short.errorMessage = short.errorMessage.slice(0, short.errorMessage.length / 2);
  let room = MAX_TRAILED - size(short);
  for (const line of trace) {
    const more = size(line) + 1;
    if (more > room) continue;
    short.trace.push(line);
    room -= more;
  }
  return short;
}

function size(value) {
  return Buffer.byteLength(JSON.stringify(value));
}
