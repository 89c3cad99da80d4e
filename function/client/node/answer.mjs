// What a handler returns, as HTTP; see event.mjs. What cannot be sent throws, and the client gets a 502.

// Headers that belong to a connection, or to the message as it is sent.
const FRAMING = new Set(['connection', 'content-length', 'keep-alive', 'proxy-connection', 'te', 'trailer', 'transfer-encoding', 'upgrade']);
const NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}$/;
const CONTROL = /[\x00-\x08\x0a-\x1f\x7f]/;
const NOT_ASCII = /[^\x00-\x7f]/;
const MANY = 64 << 10; // characters of which no JSON is larger than a limit

// answerOf returns { status, headers, body } of a handler's result; headers is a flat list of names and values. limit bounds the
// JSON of the result, in bytes. It throws TypeError if the result has no JSON, an AnswerError if it is too large or invalid.
export function answerOf(result, limit) {
  return isSimple(result) ? shaped(result) : decode(JSON.stringify(result) ?? 'null', limit);
}

export class AnswerError extends Error {
  constructor(type, message) {
    super(message);
    this.type = type;
  }
}

// isSimple reports whether a result is, as it is, what would be read from its JSON, and small.
function isSimple(result) {
  if (!isPlain(result) || typeof result.statusCode !== 'number') return false;
  const { headers, body, cookies, isBase64Encoded, multiValueHeaders } = result;
  if (body != null && (typeof body !== 'string' || body.length > MANY)) return false;
  if (cookies !== undefined || multiValueHeaders !== undefined || (isBase64Encoded !== undefined && typeof isBase64Encoded !== 'boolean')) return false;
  return headers === undefined || (isPlain(headers) && Object.values(headers).every((value) => typeof value === 'string'));
}

function isPlain(value) {
  return typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype && value.toJSON === undefined;
}

// decode reads JSON as package function/event does.
function decode(json, limit) {
  if (Buffer.byteLength(json) > limit) {
    throw new AnswerError('Function.ResponseSizeTooLarge', `Response payload size exceeded maximum allowed payload size (${limit} bytes).`);
  }
  const value = JSON.parse(json);
  if (value === null) return { status: 200, headers: [], body: '' };
  if (typeof value === 'object' && !Array.isArray(value) && value.statusCode !== undefined) return shaped(value);
  return { status: 200, headers: ['Content-Type', 'application/json'], body: typeof value === 'string' ? value : json };
}

function shaped(value) {
  const status = statusOf(value.statusCode);
  const headers = [];
  if (value.headers != null) addHeaders(headers, value.headers);
  if (value.cookies != null) {
    if (!Array.isArray(value.cookies)) invalid('its cookies are not a list');
    for (const cookie of value.cookies) addHeader(headers, 'Set-Cookie', cookie ?? '', typeof (cookie ?? '') === 'string');
  }
  const body = bodyOf(value);
  if (body.length > 0 && !headers.some((name, i) => i % 2 === 0 && name.toLowerCase() === 'content-type')) {
    headers.push('Content-Type', 'application/json');
  }
  // With a body that is text Node would write the headers as UTF-8 once more.
  return { status, headers, body: typeof body === 'string' && headers.some((part) => NOT_ASCII.test(part)) ? Buffer.from(body) : body };
}

function statusOf(code) {
  const value = typeof code === 'string' && /^-?\d+(\.\d+)?$/.test(code) ? Number(code) : code;
  if (typeof value !== 'number') invalid(`its statusCode is ${short(code)}, which is no number`);
  if (!Number.isInteger(value) || value < 100 || value > 599) invalid(`its statusCode is ${short(code)}, which is not from 100 to 599`);
  if (value < 200) invalid(`its statusCode is ${value}, which is no final answer`);
  return value;
}

function addHeaders(headers, given) {
  if (typeof given !== 'object' || Array.isArray(given)) invalid('its headers are no object');
  for (const name of Object.keys(given)) {
    const value = given[name] ?? '';
    addHeader(headers, name, value, typeof value !== 'object');
  }
}

function addHeader(headers, name, value, isScalar) {
  if (!isScalar) invalid(`its header ${short(name)}: its value is ${short(value)}, which is no text`);
  if (!NAME.test(name)) invalid(`${short(name)} cannot be the name of a header`);
  const written = String(value);
  if (CONTROL.test(written)) invalid(`its header ${short(name)} has a value with characters that no header may have`);
  const lower = name.toLowerCase();
  if (FRAMING.has(lower) || lower.startsWith('lull-')) return;
  // Node writes Latin-1: other characters go as the bytes they have in UTF-8.
  headers.push(name, NOT_ASCII.test(written) ? Buffer.from(written.toWellFormed?.() ?? written).toString('latin1') : written);
}

function bodyOf({ body, isBase64Encoded }) {
  if (body == null) return '';
  if (typeof body !== 'string') return JSON.stringify(body);
  if (isBase64Encoded !== true) return body;
  if (!/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(body.replace(/[\r\n]/g, ''))) {
    invalid('its body is not base64, as isBase64Encoded says');
  }
  return Buffer.from(body, 'base64');
}

function short(value) {
  return String(JSON.stringify(value)).slice(0, 40);
}

function invalid(message) {
  throw new AnswerError('Runtime.InvalidResponse', message);
}
