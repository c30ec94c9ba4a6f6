"""`serve`: the same answers as `predict`, what it says of itself, its refusals, its signals, and batches."""

import asyncio
import io
import json
import re
import runpy
import shutil
import signal
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import resfit
from resfit.cli import main
from resfit.errors import MissingExtraError, ResourceError
from resfit.shipping import server as serving_module

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Real files of every mode that the pixel rule has a word for."""
    from sklearn.datasets import load_sample_image

    folder = tmp_path_factory.mktemp("pictures")
    photo = Image.fromarray(load_sample_image("china.jpg")).resize((90, 60))
    turned = Image.Exif()
    turned[0x0112] = 6
    photo.save(folder / "photo.jpg")
    photo.save(folder / "turned.jpg", exif=turned)
    photo.convert("CMYK").save(folder / "cmyk.jpg")
    clear = photo.convert("RGBA")
    clear.putalpha(photo.convert("L"))
    clear.save(folder / "alpha.png")
    photo.convert("L").save(folder / "grey.png")
    photo.quantize(16).save(folder / "palette.gif")
    Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257).save(folder / "deep.png")
    photo.save(folder / "photo.webp", lossless=True)
    for kind in ("jpg", "png"):  # decoded in the event loop
        photo.resize((40, 30)).save(folder / f"tiny.{kind}")
    return folder


@pytest.fixture(scope="module")
def served(shipped, server):
    with server["serving"](shipped, "--max-bytes", "1M", "--max-pixels", "4M") as (address, process):
        yield SimpleNamespace(address=address, process=process, ask=server["ask"], form=server["form"])


def test_answers_are_those_of_predict(served, shipped, pictures):
    files = sorted(pictures.iterdir())
    expected = resfit.predict([shipped], files, "cpu")
    rows = dict(zip((Path(name).name for name in expected.ids), expected.probs, strict=True))
    assert len({row.tobytes() for row in rows.values()}) > 5  # they are not all the same
    body, kind = served.form([(file.name, file.read_bytes()) for file in files])
    status, _, together = served.ask(served.address, "/predict?top=99", body, content_type=kind)
    assert status == 200
    assert [answer["name"] for answer in together["predictions"]] == [file.name for file in files]
    for file, answer in zip(files, together["predictions"], strict=True):
        found = {row["label"]: row["score"] for row in answer["top"]}
        np.testing.assert_allclose([found[name] for name in expected.class_names], rows[file.name], atol=1e-5)
        assert answer["label"] == expected.class_names[rows[file.name].argmax()]
        assert [row["score"] for row in answer["top"]] == sorted(found.values(), reverse=True)
        _, _, alone = served.ask(served.address, body=file.read_bytes())
        assert alone["predictions"][0]["name"] is None
        assert alone["predictions"][0]["score"] == pytest.approx(answer["score"], abs=1e-5)
        assert (alone["model"], alone["milliseconds"] > 0) == ("tiny", True)


def test_no_torch_is_loaded_by_the_server(served, pictures):
    assert served.ask(served.address, body=(pictures / "photo.jpg").read_bytes())[0] == 200
    maps = Path(f"/proc/{served.process.pid}/maps").read_text()
    assert "onnxruntime" in maps
    assert "torch" not in maps


def test_top_and_what_is_wrong_with_it(served, pictures):
    photo = (pictures / "photo.jpg").read_bytes()
    _, _, answer = served.ask(served.address, "/predict?top=1", photo)
    assert len(answer["predictions"][0]["top"]) == 1
    for wrong in ("0", "-1", "x", ""):
        status, _, answer = served.ask(served.address, f"/predict?top={wrong}", photo)
        assert (status, "top" in answer["error"]) == (400, True)


def test_one_bad_image_refuses_the_request_and_is_named(served, pictures):
    photo = (pictures / "photo.jpg").read_bytes()
    body, kind = served.form([("good.jpg", photo), ("cut.jpg", photo[:500])])
    status, _, answer = served.ask(served.address, body=body, content_type=kind)
    assert status == 422
    assert answer["error"].startswith("cut.jpg: cannot be decoded")


def test_only_what_is_tiny_is_decoded_in_the_event_loop(pictures):
    from resfit.data.decode import decode
    from resfit.data.images import PixelRule
    from resfit.shipping.intake import TINY_BYTES, TINY_PIXELS, Limits, Upload, decode_uploads, is_tiny

    def upload(width: int, height: int) -> Upload:
        held = io.BytesIO()
        Image.open(pictures / "photo.jpg").resize((width, height)).save(held, "PNG")
        return Upload(None, held.getvalue())

    rule, most = PixelRule(16), upload(64, 64)
    assert is_tiny([Upload(None, bytes(TINY_BYTES))], PixelRule(64))
    assert not is_tiny([Upload(None, bytes(TINY_BYTES + 1))], PixelRule(64))
    assert not is_tiny([Upload(None, b"")], PixelRule(65))
    assert not is_tiny([most, most], rule)
    pixels = decode_uploads([most], rule, Limits(), TINY_PIXELS)
    assert pixels is not None
    assert (pixels[0] == decode(most.data, rule, "it")).all()
    assert decode_uploads([upload(64, 65)], rule, Limits(), TINY_PIXELS) is None


def test_limits(served):
    assert served.ask(served.address, body=bytes(10**6 + 1))[0] == 413
    held = io.BytesIO()
    Image.new("1", (2000, 1200)).save(held, "PNG")
    large = held.getvalue()
    assert served.ask(served.address, body=large)[0] == 200  # decoded apart from small ones
    body, kind = served.form([("a.png", large), ("b.png", large)])
    status, _, answer = served.ask(served.address, body=body, content_type=kind)
    assert (status, answer["error"]) == (413, "b.png: makes more than 4,000,000 pixels. Shrink it")
    body, kind = served.form([("a.png", b"")] * 65)
    assert served.ask(served.address, body=body, content_type=kind)[0] == 400


def test_hosts_and_origins(served, pictures):
    photo = (pictures / "photo.jpg").read_bytes()
    for name in ("localhost", "localhost:1", "127.0.0.5:99", "[::1]:8000"):
        assert served.ask(served.address, body=photo, host=name)[0] == 200
    for name in ("evil.example", "127.0.0.1.evil.example", "10.0.0.1", "localhost.evil.example:80"):
        assert served.ask(served.address, body=photo, host=name)[0] == 403
        assert served.ask(served.address, "/metadata", method="GET", host=name)[0] == 403
    assert served.ask(served.address, body=photo, origin="http://evil.example")[0] == 403
    assert served.ask(served.address, body=photo, host="localhost:8", origin="http://localhost:8")[0] == 200


def test_what_it_says_of_itself(served, shipped):
    status, headers, facts = served.ask(served.address, "/metadata", method="GET")
    assert status == 200
    assert facts["classes"] == ["0", "1", "2"]
    assert facts["params"] == json.loads((shipped / "run.json").read_text())["params"]
    assert facts["parity"]["agreement"] == 1
    assert served.ask(served.address, "/healthz", method="GET")[2] == {"status": "ok"}
    _, headers, page = served.ask(served.address, "/", method="GET")
    assert "script-src 'self'" in headers["content-security-policy"]
    assert "access-control-allow-origin" not in headers
    assert b"<script src" in page
    status, _, empty = served.ask(served.address, "/", method="HEAD")
    assert (status, empty) == (200, b"")
    assert "/predict" in served.ask(served.address, "/openapi.json", method="GET")[2]["paths"]


def read_metrics(text: str) -> dict[str, float]:
    """Prometheus' text by the grammar of its exposition format."""
    lines = [line for line in text.splitlines() if not line.startswith("# ")]
    found = [re.fullmatch(r'([a-z_]+(?:\{[a-z]+="[^"]*"(?:,[a-z]+="[^"]*")*\})?) ([0-9.e+-]+)', line) for line in lines]
    assert all(found)
    return {match[1]: float(match[2]) for match in found if match}


def test_metrics_count_what_was_asked(served, pictures):
    def read() -> dict[str, float]:
        return read_metrics(served.ask(served.address, "/metrics", method="GET")[2].decode())

    before = read()
    body, kind = served.form([("a.jpg", (pictures / "photo.jpg").read_bytes())] * 3)
    for _ in range(2):
        served.ask(served.address, body=body, content_type=kind)
    served.ask(served.address, body=b"no image")
    served.ask(served.address, "/none", method="GET")
    after = read()

    def more(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert more("resfit_images_total") == 6
    assert more('resfit_requests_total{path="/predict",code="200"}') == 2
    assert more('resfit_requests_total{path="/predict",code="422"}') == 1
    assert more('resfit_requests_total{path="other",code="404"}') == 1
    assert more("resfit_predict_seconds_count") == more("resfit_batch_images_count") == 2
    assert more("resfit_batch_images_sum") == 6
    assert more('resfit_batch_images_bucket{le="2"}') == 0
    assert more('resfit_batch_images_bucket{le="4"}') == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_after_what_is_being_answered(number, code, shipped, server, pictures):
    with server["serving"](shipped) as (address, process):
        host, port = address.removeprefix("http://").split(":")
        body = (pictures / "photo.jpg").read_bytes()
        with socket.create_connection((host, int(port))) as begun:
            head = f"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\nexpect: 100-continue\r\n\r\n"
            begun.sendall(head.encode())
            assert begun.recv(100).startswith(b"HTTP/1.1 100")  # the application has it
            process.send_signal(number)
            begun.sendall(body)
            answer = b"".join(iter(lambda: begun.recv(4096), b""))
        assert answer.startswith(b"HTTP/1.1 200")
        stderr = process.communicate(timeout=20)[1]
        assert process.returncode == code
        assert re.fullmatch(
            r"serving tiny, 3 classes, 16x16 pixels: http://127\.0\.0\.1:\d+ \(Ctrl-C stops it\)\n", stderr
        )


def said(capsys, *words: object) -> tuple[int, str]:
    code = main([str(word) for word in ("serve", *words)])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return code, lines[0]


def test_a_second_interrupt_waits_for_nobody_and_says_nothing(shipped, server):
    with server["serving"](shipped) as (address, process):
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as begun:
            begun.sendall(
                b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n"
            )
            assert begun.recv(100).startswith(b"HTTP/1.1 100")
            started = time.monotonic()
            process.send_signal(signal.SIGINT)
            while time.monotonic() < started + 5:  # until the first was heard: nobody is let in any more
                try:
                    socket.create_connection((host, int(port)), timeout=1).close()
                except OSError:
                    break
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            stderr = process.communicate(timeout=20)[1]
        assert time.monotonic() < started + 8  # less than the grace
        assert (process.returncode, len(stderr.splitlines())) == (130, 1)


def test_mistakes_are_one_line(shipped, tmp_path, capsys, monkeypatch):
    shutil.copytree(shipped, tmp_path / "run", ignore=shutil.ignore_patterns("*.onnx"))
    code, line = said(capsys, tmp_path / "run")
    assert code == 2
    assert "`resfit export" in line
    assert not list((tmp_path / "run").rglob("*.onnx"))
    assert said(capsys, tmp_path / "none")[0] == 2
    (tmp_path / "model.onnx").write_bytes(b"no model")
    assert said(capsys, tmp_path / "model.onnx")[0] == 2
    for words in (["--port", 70000], ["--host", ""], ["--max-bytes", "no"], ["--read-seconds", "-1"], ["--prt", 1]):
        assert said(capsys, shipped, *words)[0] == 2
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, line = said(capsys, shipped, "--port", taken.getsockname()[1])
        assert (code, "in use" in line) == (6, True)
    for host in ("192.0.2.1", "no.such.host.invalid", "x" * 300):
        assert said(capsys, shipped, "--host", host, "--port", 0)[0] == 6

    def refuse(self: socket.socket, place: object) -> None:
        raise PermissionError(13, "Permission denied")  # what bind says below 1024 without the right

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(ResourceError, match=r"127\.0\.0\.1:80: cannot be listened at: Permission denied"):
        serving_module._listen("127.0.0.1", 80)
    monkeypatch.setitem(serving_module.NEEDS, "no_such_package", "no-such-package")
    with pytest.raises(MissingExtraError, match=r"resfit\[serve\]"):
        resfit.serve(shipped)


def test_a_batcher_answers_each_its_own_and_has_an_end():
    from resfit.shipping.batching import Batcher, Full

    sizes: list[int] = []

    def answer(images: np.ndarray) -> np.ndarray:
        if images.max() == 255:
            raise ValueError("a bad batch")
        return images[:, 0, 0, :1].astype(np.float32)

    def image(value: int, count: int = 1) -> np.ndarray:
        return np.full((count, 3, 1, 1), value, np.uint8)

    async def work() -> None:
        batcher = Batcher(answer, most=4, room=10, note=sizes.append)
        first = [asyncio.create_task(batcher.ask(image(k, 1 + k % 3))) for k in range(5)]  # 1 + 2 + 3 + 1 + 2 images
        gone = asyncio.create_task(batcher.ask(image(9)))
        await asyncio.sleep(0)
        assert batcher.waiting == 10
        with pytest.raises(Full):
            await batcher.ask(image(1))
        gone.cancel()
        batcher.start()
        for k, found in enumerate(await asyncio.gather(*first)):
            assert found.tolist() == [[k]] * (1 + k % 3)
        assert sizes == [3, 4, 2]
        with pytest.raises(ValueError, match="a bad batch"):
            await batcher.ask(image(255))
        assert (await batcher.ask(image(7, 12))).tolist() == [
            [7]
        ] * 12  # more than there is room for, into an empty queue
        assert batcher.waiting == 0
        batcher.end()
        batcher.end()  # twice is once
        for _ in range(100):
            if not [thread for thread in threading.enumerate() if thread.name == "resfit-network"]:
                break
            await asyncio.sleep(0.01)
        else:
            raise AssertionError("its thread goes on")

    asyncio.run(work())


def test_a_full_queue_is_503_and_says_when_to_come_back(pictures):
    from resfit.data.images import PixelRule
    from resfit.shipping.app import make_app
    from resfit.shipping.intake import Limits

    free = threading.Event()

    def probs(images: np.ndarray) -> np.ndarray:
        assert free.wait(20)
        return np.ones((len(images), 1), np.float32)

    bundle = SimpleNamespace(probs=probs, rule=PixelRule(8), class_names=("a",))
    app = make_app(bundle, {"name": "slow"}, Limits(queue=2, answer_seconds=0.5), loopback=True)
    photo = (pictures / "photo.jpg").read_bytes()

    async def ask() -> tuple[int, dict[bytes, bytes]]:
        sent = []
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/predict",
            "query_string": b"",
            "headers": [(b"host", b"localhost")],
        }
        received = iter([{"type": "http.request", "body": photo, "more_body": False}])

        async def receive() -> dict[str, object]:
            return next(received)

        async def send(message: dict[str, object]) -> None:
            sent.append(message)

        await app(scope, receive, send)
        return sent[0]["status"], dict(sent[0]["headers"])

    async def work() -> None:
        async with app.router.lifespan_context(app):
            asks = [asyncio.create_task(ask()) for _ in range(6)]
            await asyncio.sleep(0.3)
            over = [task.result() for task in asks if task.done()]
            assert [status for status, _ in over] == [503] * len(over)
            assert len(over) >= 2  # some are being computed, two wait
            assert {headers[b"retry-after"] for _, headers in over} == {b"1"}
            assert {status for status, _ in await asyncio.gather(*asks)} == {503}  # out of time
            free.set()
            for _ in range(100):  # those who gave up are still in the queue for a moment
                if (status := (await ask())[0]) != 503:
                    break
                await asyncio.sleep(0.05)
            assert status == 200

    asyncio.run(work())


def benchmark(monkeypatch, name: str) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return runpy.run_path(str(BENCHMARKS / f"{name}.py"))


def test_bad_requests_are_refused_in_time_and_good_ones_answered_meanwhile(shipped, server, pictures, monkeypatch):
    """A seeded share of what `python benchmarks/serve_abuse.py` sends."""
    script = benchmark(monkeypatch, "serve_abuse")
    image = (pictures / "photo.jpg").read_bytes()
    with server["serving"](shipped, *script["WORDS"]) as (address, process):
        expected = server["ask"](address, body=image)[2]["predictions"][0]
        outcome = asyncio.run(script["abuse"](address, image, expected, 168, seed=1))
        assert outcome.wrong == []
        assert outcome.good_wrong == []
        assert outcome.good > 10
        assert sum(outcome.statuses.values()) == 168
        metrics = read_metrics(server["ask"](address, "/metrics", method="GET")[2].decode())
        assert not [name for name in metrics if 'code="5' in name]
        process.terminate()
        assert len(process.communicate()[1].splitlines()) == 1  # nothing of it fills a log


def test_under_load_every_answer_is_right(shipped, server, pictures, monkeypatch, need):
    """Three seconds of what `python benchmarks/serve_load.py` does for thirty."""
    need("wrk")
    script = benchmark(monkeypatch, "serve_load")
    files = [file for file in sorted(pictures.iterdir()) if file.suffix in (".jpg", ".png")]
    with server["serving"](shipped) as (address, process):
        script["load"](address, files, 1)
        found = script["check_under_load"](address, process.pid, shipped, files, 3)
    assert found["wrong"] == []
    assert found["checked"] > 0
    assert (found["failed"], found["socket_errors"]) == (0, 0)
    assert found["refused"] / found["requests"] == pytest.approx(0.1, abs=0.05)
    assert found["good"] + found["refused"] + found["busy"] == found["requests"]
    assert abs(found["memory_growth"]) < 0.05
