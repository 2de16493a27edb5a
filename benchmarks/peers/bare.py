"""A bare ASGI server that answers a constant: what uvicorn itself costs, on the same interpreter and load."""

# ruff: noqa: ARG001

import sys

import uvicorn

BODY = b'{"predictions":[{"request_id":"0123456789abcdef-1","score":0.25,"decision":0,"version":"1"}]}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]


async def application(scope, receive, send):
    """Read the body, answer."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})


if __name__ == "__main__":
    uvicorn.run(application, host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False,
                lifespan="off", log_level="warning", server_header=False)  # fmt: skip
