let n = 0; export default defineEventHandler(() => ({ n: ++n }))
