import asyncio
import os

import websockets


async def shout(websocket):
    async for message in websocket:
        await websocket.send(message.upper())


async def main():
    async with websockets.serve(shout, "0.0.0.0", int(os.environ["PORT"])):
        await asyncio.Future()


asyncio.run(main())
