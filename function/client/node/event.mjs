// HTTP requests as events in payload format 2.0, and what a handler answers as HTTP. Package function/event does the same for
// programs that poll the Runtime API, and says where AWS documents it; both are held to the same golden files.

import { isUtf8 } from 'node:buffer';
import querystring from 'node:querystring';

const CONNECTION = new Set(['connection', 'keep-alive', 'proxy-connection', 'te', 'trailer', 'transfer-encoding', 'upgrade']);
const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

// eventOf makes the event of a request (http.IncomingMessage), whose body has been read.
export function eventOf(request, body, { app, id, now }) {
  const headers = {};
  const cookies = [];
  const raw = request.rawHeaders;
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i].toLowerCase();
    if (CONNECTION.has(name) || (name.startsWith('lull-') && name !== 'lull-schedule')) continue;
    const value = text(raw[i + 1]);
    if (name === 'cookie') cookies.push(...value.split(';').map((cookie) => cookie.trim()).filter(Boolean));
    put(headers, name, Object.hasOwn(headers, name) ? headers[name] + (name === 'cookie' ? '; ' : ',') + value : value);
  }
  const domainName = withoutPort(headers.host ?? '');
  const target = text(request.url);
  const mark = target.indexOf('?');
  const rawPath = mark < 0 ? target : target.slice(0, mark);
  const rawQueryString = mark < 0 ? '' : target.slice(mark + 1);
  const event = { version: '2.0', routeKey: '$default', rawPath, rawQueryString };
  if (cookies.length > 0) event.cookies = cookies;
  event.headers = headers;
  if (/[^&]/.test(rawQueryString)) event.queryStringParameters = parametersOf(rawQueryString);
  event.requestContext = {
    accountId: 'anonymous',
    apiId: app,
    domainName,
    domainPrefix: domainName.split('.', 1)[0],
    http: {
      method: request.method,
      path: rawPath,
      protocol: `HTTP/${request.httpVersion}`,
      sourceIp: sourceOf(request, headers),
      userAgent: headers['user-agent'] ?? '',
    },
    requestId: id,
    routeKey: '$default',
    stage: '$default',
    time: clock(now),
    timeEpoch: now.getTime(),
  };
  if (body.length > 0) {
    const plain = isText(headers) && isUtf8(body);
    event.body = plain ? body.utf8Slice() : body.base64Slice();
    event.isBase64Encoded = !plain;
  } else event.isBase64Encoded = false;
  return event;
}

function withoutPort(host) {
  const parts = /^(?:\[(.*)\]|([^:]*)):\d*$/.exec(host);
  return parts ? parts[1] ?? parts[2] : host;
}

// put sets a property of its own, whatever the name.
function put(object, name, value) {
  if (name === '__proto__') Object.defineProperty(object, name, { value, writable: true, enumerable: true, configurable: true });
  else object[name] = value;
}

// text reads what Node has read as Latin-1 for what it is.
function text(value) {
  return /[\x80-\xff]/.test(value) ? Buffer.from(value, 'latin1').toString() : value;
}

// parametersOf decodes a query. A pair that cannot be decoded is taken as it is.
function parametersOf(query) {
  const values = {};
  for (const pair of query.split('&')) {
    if (pair === '') continue;
    const equals = pair.indexOf('=');
    const name = unescape(equals < 0 ? pair : pair.slice(0, equals));
    const value = equals < 0 ? '' : unescape(pair.slice(equals + 1));
    put(values, name, Object.hasOwn(values, name) ? `${values[name]},${value}` : value);
  }
  return values;
}

function unescape(part) {
  if (!/[%+]/.test(part)) return part;
  if (/%(?![0-9a-fA-F]{2})/.test(part)) return part;
  return querystring.unescapeBuffer(part.replaceAll('+', ' ')).toString();
}

// sourceOf is who the gateway saw: what it added to the header last.
function sourceOf(request, headers) {
  const forwarded = headers['x-forwarded-for'];
  return forwarded === undefined ? request.socket.remoteAddress : forwarded.slice(forwarded.lastIndexOf(',') + 1).trim();
}

// isText reports whether AWS takes a body of this kind for text.
function isText(headers) {
  if (headers['content-encoding']) return false;
  const kind = (headers['content-type'] ?? '').split(';', 1)[0].trim().toLowerCase();
  return ['application/json', 'application/xml', 'application/javascript'].includes(kind)
    || kind.startsWith('text/') || kind.endsWith('+json') || kind.endsWith('+xml');
}

function clock(now) {
  const two = (number) => String(number).padStart(2, '0');
  return `${two(now.getUTCDate())}/${MONTHS[now.getUTCMonth()]}/${now.getUTCFullYear()}:${two(now.getUTCHours())}:${two(now.getUTCMinutes())}:${two(now.getUTCSeconds())} +0000`;
}
