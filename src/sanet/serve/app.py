"""What a served model answers: masks, and what stands in them; its labels; whether it is there."""

from __future__ import annotations

import asyncio
import json
from hmac import compare_digest
from http import HTTPStatus
from io import BytesIO
from typing import Annotated, Any, Literal

import torch
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import ClientDisconnect

from sanet.inference.prediction import Prediction
from sanet.inference.predictor import Predictor
from sanet.serve.config import ServeConfig
from sanet.serve.engine import Engine
from sanet.serve.limits import FORMATS, OwnHostsOnly, Refused, opened
from sanet.structures import UsageError

Answer = Literal["png", "json"]
MEDIA: dict[Answer, str] = {"png": "image/png", "json": "application/json"}
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]
ERRORS: dict[int | str, Any] = {
    status: {"description": HTTPStatus(status).phrase} for status in (401, 408, 413, 415, 422, 503, 504)
}


async def received(request: Request, limit: int) -> bytes:
    """The body of a request; Refused before more of it is in memory than allowed."""
    found, length = bytearray(), int(request.headers.get("content-length", 0))
    if length <= limit:
        async for part in request.stream():
            found += part
            if (length := len(found)) > limit:
                break
    if length > limit:
        raise Refused(413, f"the image has more than {limit} bytes")
    return bytes(found)


def decoded(predictor: Predictor, body: bytes, largest_megapixels: float) -> torch.Tensor:
    """(C, H, W) of an image file; Refused where it is none that is decoded."""
    with opened(BytesIO(body), "the image", largest_megapixels) as image:
        return predictor.pixels(image)


def encoded(prediction: Prediction, wanted: Answer, tolerance: float) -> bytes:
    """A mask, or what stands in it: shares, regions and outlines of the classes, these in pixels from the corner."""
    if wanted == "png":
        return prediction.encoded("mask")
    height, width = prediction.mask.shape
    polygons = [
        {"label": region.label, "rings": [ring.tolist() for ring in region.rings]}
        for region in prediction.polygons(tolerance)
    ]
    shares = {name: found.share for name, found in prediction.classes.items()}
    regions = [region._asdict() for region in prediction.regions]
    content = {"width": width, "height": height, "shares": shares, "regions": regions, "polygons": polygons}
    return json.dumps(content).encode()


async def answer(engine: Engine, config: ServeConfig, request: Request, wanted: Answer, tolerance: float) -> bytes:
    """What the model says of the image in the body of a request; Refused at the end of the time."""
    status, missing = 408, "image"
    try:
        async with asyncio.timeout(config.seconds):
            body = await received(request, int(config.largest_megabytes * 1e6))
            status, missing = 504, "answer"
            image = await asyncio.to_thread(decoded, engine.predictor, body, config.largest_megapixels)
            done = engine.submit(image, "mask" if wanted == "png" else "confidence")
            return await asyncio.to_thread(encoded, await asyncio.wrap_future(done), wanted, tolerance)
    except TimeoutError as error:
        raise Refused(status, f"no {missing} within {config.seconds:g} seconds") from error


def create_app(predictor: Predictor, config: ServeConfig) -> FastAPI:
    """The application, for any ASGI server; where it listens is that server's matter."""
    engine, requests = Engine(predictor), set[Request]()

    async def allowed(given: Credentials) -> None:
        sent = given.credentials if given else ""
        if config.token and not compare_digest(sent.encode(), config.token.encode()):
            raise HTTPException(401, "send the token: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})

    app = FastAPI(title="sanet", redoc_url=None)
    for kind in (UsageError, ClientDisconnect, Exception):
        app.add_exception_handler(kind, refused)
    if not config.token:  # another site has no token
        app.add_middleware(OwnHostsOnly, host=config.host, allowed_hosts=config.allowed_hosts)

    @app.post(
        "/predict",
        dependencies=[Depends(allowed)],
        responses=ERRORS | {200: {"content": {kind: {} for kind in MEDIA.values()}}},
        response_class=Response,
        openapi_extra={"requestBody": {"content": {f"image/{name.lower()}": {} for name in FORMATS}, "required": True}},
    )
    async def predict(
        request: Request,
        format: Annotated[Answer | None, Query(description="by default what Accept says, or png")] = None,
        tolerance: Annotated[float, Query(ge=0, le=100, description="pixels that outlines may move")] = 0.5,
    ) -> Response:
        """The body is an image file; the answer a mask of class indices, or shares, regions and polygons in JSON."""
        wanted: Answer = format or ("json" if MEDIA["json"] in request.headers.get("accept", "") else "png")
        if len(requests) >= config.waiting:
            raise Refused(503, f"{len(requests)} requests wait already; try again")
        requests.add(request)
        try:
            return Response(await answer(engine, config, request, wanted, tolerance), media_type=MEDIA[wanted])
        finally:
            requests.remove(request)

    @app.get("/labels", dependencies=[Depends(allowed)])
    async def labels() -> dict[str, Any]:
        """The classes that the indices of a mask stand for."""
        found = predictor.labels
        return {"names": found.names, "colors": found.colors, "ignore_index": found.ignore_index}

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Whether requests are answered, and how many are at work or wait."""
        return {"status": "ok", "requests": len(requests)}

    return app


async def refused(_: Request, error: Exception) -> Response:
    """A request that is wrong, or that nobody waits for; or a mistake of ours, which the server's log has."""
    ours = not isinstance(error, (UsageError, ClientDisconnect))
    status = error.status if isinstance(error, Refused) else 500 if ours else 422
    again = {"Retry-After": "1"} if status == 503 else None
    return JSONResponse({"detail": "internal error" if ours else str(error)}, status, again)
