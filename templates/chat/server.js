// A chat room: one page, one WebSocket, the last 50 messages in memory.
// Nothing in here knows about Lull. It is a server that listens on a port.
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { WebSocketServer, WebSocket } from 'ws'

const port = process.env.PORT || 8080
const keep = 50
const page = await readFile(new URL('public/index.html', import.meta.url))

const messages = []
let lastId = 0

const server = createServer((request, response) => {
  const path = request.url.split('?')[0]
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.writeHead(405, { Allow: 'GET, HEAD' }).end()
  } else if (path === '/') {
    response.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8', 'Cache-Control': 'no-cache' }).end(page)
  } else if (path === '/messages') {
    response.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify(messages) + '\n')
  } else {
    response.writeHead(404, { 'Content-Type': 'text/plain' }).end('not found\n')
  }
})

const room = new WebSocketServer({ server, path: '/room', maxPayload: 16 * 1024 })

room.on('connection', (socket) => {
  socket.on('error', () => socket.terminate())
  socket.on('close', () => sayWhoIsHere())
  socket.on('message', (data, isBinary) => {
    const said = isBinary ? null : understand(data)
    if (said) publish(said)
  })
  send(socket, { type: 'history', messages })
  sayWhoIsHere()
})

// understand turns what a client sent into a message, or null if it is none.
function understand(data) {
  let said
  try {
    said = JSON.parse(data)
  } catch {
    return null
  }
  const name = clean(said?.name, 32) || 'somebody'
  const text = clean(said?.text, 1000)
  return text ? { name, text } : null
}

function clean(value, length) {
  return typeof value === 'string' ? Array.from(value.trim()).slice(0, length).join('') : ''
}

function publish({ name, text }) {
  const message = { id: ++lastId, at: new Date().toISOString(), name, text }
  messages.push(message)
  if (messages.length > keep) messages.shift()
  console.log(`message ${message.id}: ${text.length} characters`)
  broadcast({ type: 'message', message })
}

function sayWhoIsHere() {
  broadcast({ type: 'here', count: [...room.clients].filter((c) => c.readyState === WebSocket.OPEN).length })
}

function broadcast(event) {
  for (const socket of room.clients) send(socket, event)
}

function send(socket, event) {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(event))
}

server.listen(port, () => console.log(`chat listens on port ${server.address().port}`))

process.on('SIGTERM', () => {
  for (const socket of room.clients) socket.close(1001, 'the server is going away')
  server.close(() => process.exit(0))
  setTimeout(() => process.exit(0), 5000).unref()
})
