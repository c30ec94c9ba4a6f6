"""The endpoint that one writes by hand: fastapi, Pillow and ONNX Runtime, one image a request; the peer of serve_load.py.

Usage: python benchmarks/serve_peer.py MODEL.onnx SIZE CLASSES...
"""

import io
import json
import socket
import sys
from typing import Any

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI, Request
from PIL import Image

SESSION = onnxruntime.InferenceSession(sys.argv[1])
SIZE, CLASSES = int(sys.argv[2]), sys.argv[3:]
app = FastAPI()


@app.post("/predict")
async def predict(request: Request) -> dict[str, Any]:
    """Answer the image in the body."""
    image = Image.open(io.BytesIO(await request.body())).convert("RGB")
    if image.size != (SIZE, SIZE):
        image = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    logits = SESSION.run(None, {"images": np.asarray(image).transpose(2, 0, 1)[None]})[0][0]
    probs = np.exp(logits - logits.max())
    probs /= probs.sum()
    top = [{"label": CLASSES[k], "score": float(probs[k])} for k in np.argsort(-probs)[:5]]
    return {**top[0], "top": top}


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0))
    print(json.dumps({"address": f"http://127.0.0.1:{listener.getsockname()[1]}"}), flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listener])
