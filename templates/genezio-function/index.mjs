// A function in AWS's form: it gets an event and answers.
let hours = 0;

export const handler = async (event) => {
  if (event.rawPath === '/hourly') hours++;
  return {
    statusCode: 200,
    headers: { 'content-type': 'text/html; charset=utf-8' },
    body: `<!doctype html><title>Hello</title><h1>Hello</h1><p>The clock has struck ${hours} times.</p>\n`,
  };
};
