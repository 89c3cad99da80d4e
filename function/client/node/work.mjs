// Knows when the function has nothing left to do. Lambda answers a callback once the event loop is empty, and an invocation
// that can no longer end then fails; but here a connection waits for events all the time. So connections do not count (they
// are unref'ed), a timer keeps the process up, and it too stops counting while somebody waits for the loop to be empty.

const alive = setInterval(() => {}, 2 ** 31 - 1);
const waiting = new Set();

process.on('beforeExit', () => {
  const all = [...waiting];
  waiting.clear();
  alive.ref();
  for (const drained of all) drained();
});

// onEmpty calls drained once, when nothing is left to do. The function it returns takes that back.
export function onEmpty(drained) {
  waiting.add(drained);
  alive.unref();
  return () => {
    waiting.delete(drained);
    if (waiting.size === 0) alive.ref();
  };
}
