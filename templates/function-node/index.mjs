// A function: it gets an event and answers. An HTTP request is an event, too, in AWS's payload format 2.0.
// Memory outlives an event, and a sleep; only a new environment begins again.
let visits = 0;

export const handler = async (event) => {
  const name = event.queryStringParameters?.name ?? 'you';
  return {
    statusCode: 200,
    headers: { 'content-type': 'text/html; charset=utf-8' },
    body: `<!doctype html><title>Hello</title><h1>Hello, ${escape(name)}</h1><p>Visit ${++visits}.</p>\n`,
  };
};

const escape = (text) => text.replace(/[&<>"]/g, (c) => `&#${c.codePointAt(0)};`);
