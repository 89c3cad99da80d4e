let ticks = 0;

export const handler = async (event) => {
  if (event.rawPath === '/cron') ticks++;
  return { ticks, method: event.requestContext.http.method };
};
