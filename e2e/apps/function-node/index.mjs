// A function that counts, and says what it was asked.
let count = 0;

export const handler = async (event) => {
  if (event.fail) throw new TypeError('it was asked to fail');
  if (event.requestContext?.http) {
    const { rawPath, queryStringParameters, cookies, requestContext } = event;
    return {
      statusCode: 200,
      headers: { 'content-type': 'application/json', 'x-request-id': requestContext.requestId },
      body: JSON.stringify({ count: ++count, rawPath, queryStringParameters, cookies, ip: requestContext.http.sourceIp }),
    };
  }
  return { count: ++count, event };
};

// What it has to say comes in two pieces, the second when it has been asked to go on.
let go;
const goOn = new Promise((resolve) => { go = resolve; });

export const stream = awslambda.streamifyResponse(async (event, out) => {
  if (event.rawPath === '/go') {
    go();
    out = awslambda.HttpResponseStream.from(out, { statusCode: 204 });
  } else {
    out = awslambda.HttpResponseStream.from(out, { statusCode: 201, headers: { 'content-type': 'text/plain', 'x-kind': 'stream' }, cookies: ['a=b'] });
    out.write('first ');
    await goOn;
    out.write('second');
  }
  out.end();
});
