from fastapi import FastAPI, WebSocket

app = FastAPI()
started = False


@app.on_event("startup")
def start():
    global started
    started = True


@app.get("/hello/{name}")
def hello(name: str):
    return {"hello": name, "started": started}


@app.websocket("/echo")
async def echo(socket: WebSocket):
    await socket.accept()
    while True:
        await socket.send_text("you said " + await socket.receive_text())
