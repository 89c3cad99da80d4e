// The handler that is measured, as a function.
export const handler = async (event) => ({
  statusCode: 200,
  headers: { 'content-type': 'text/plain' },
  body: `hello ${event.rawPath}`,
});
