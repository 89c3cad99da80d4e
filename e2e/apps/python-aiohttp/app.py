from aiohttp import web

routes = web.RouteTableDef()


@routes.get("/")
async def hello(request):
    return web.json_response({"hello": request.query.get("name", "world")})


@routes.post("/reverse")
async def reverse(request):
    return web.Response(text=(await request.text())[::-1])


app = web.Application()
app.add_routes(routes)

if __name__ == "__main__":
    web.run_app(app, host="localhost", port=8000)
