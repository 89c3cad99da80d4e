let n = 0; export default defineEventHandler((e) => ({ n: ++n, q: getQuery(e) }))
