"""Every kind of image against a Pillow pipeline written out anew here; and what cannot be decoded."""

import io
import threading
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from resfit.data import decode as module
from resfit.data.archive import read_members
from resfit.data.decode import decode, fit
from resfit.data.images import PixelRule
from resfit.errors import DataError, UsageError

RULE = PixelRule(8)


def by_pillow(data: bytes, size: int) -> np.ndarray:
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(image, mask=image.getchannel("A"))
        image = white
    image = image.convert("RGB")
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image).transpose(2, 0, 1)


def saved(image: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"])
@pytest.mark.parametrize("size", [8, 5, 13])
def test_modes(make, mode, size):
    colours = Image.fromarray(make.noise(1, 11, 7, 4), "RGBA")
    image = colours.convert("RGBA" if mode == "PA" else mode) if mode != "PA" else colours.convert("P").convert("PA")
    form = {"CMYK": "TIFF", "YCbCr": "TIFF", "PA": "TIFF"}.get(mode, "PNG")
    if mode == "PA":
        form = "PNG"
        image = colours.quantize(16)  # a palette with alpha, as PNG stores it
    data = saved(image, form)
    found = decode(data, PixelRule(size), "x")
    assert found.shape == (3, size, size)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - by_pillow(data, size)).max() <= (1 if mode in ("LA", "RGBA", "PA") else 0)


def test_alpha_goes_over_white():
    clear = saved(Image.new("RGBA", (8, 8), (10, 20, 30, 0)), "PNG")
    assert (decode(clear, RULE, "x") == 255).all()
    half = saved(Image.new("LA", (8, 8), (0, 128)), "PNG")
    assert np.abs(decode(half, RULE, "x").astype(int) - 127).max() <= 1
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    assert (decode(saved(palette, "PNG", transparency=1), RULE, "x") == 255).all()
    assert decode(saved(palette, "PNG", transparency=0), RULE, "x")[:, 0, 0].tolist() == [200, 100, 50]
    assert (decode(saved(palette, "PNG", transparency=b"\xff\x00"), RULE, "x") == 255).all()
    grey = saved(Image.new("L", (8, 8), 7), "PNG", transparency=7)
    assert (decode(grey, RULE, "x") == 255).all()


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_divided_by_256(form):
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1040
    data = saved(Image.fromarray(deep), form)
    assert (decode(data, RULE, "x") == (deep // 256).astype(np.uint8)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation(make, orientation, form):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(make.noise(2, 9, 14)), form, exif=exif)
    for size in (8, 9):
        assert (decode(data, PixelRule(size), "x") == by_pillow(data, size)).all()


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [8, 33])
def test_simplejpeg_gives_pillows_pixels(make, subsampling, progressive, channels, side, monkeypatch):
    pixels = make.noise(3, side, side, channels)
    image = Image.fromarray(pixels if channels == 3 else pixels[:, :, 0])
    data = saved(image, "JPEG", quality=75, subsampling=subsampling, progressive=progressive)
    expected = {size: by_pillow(data, size) for size in (8, 33)}
    monkeypatch.setattr(module.Image, "open", None)  # so that only simplejpeg can have decoded it
    for size in (8, 33):
        assert (decode(data, PixelRule(size), "x") == expected[size]).all()


def test_cmyk_jpeg_takes_pillow(make):
    data = saved(Image.fromarray(make.noise(4)).convert("CMYK"), "JPEG")
    assert (decode(data, RULE, "x") == by_pillow(data, 8)).all()


@pytest.mark.parametrize("form", ["BMP", "GIF", "WEBP", "TIFF", "PPM"])
def test_other_formats(make, form):
    data = saved(Image.fromarray(make.noise(5, 8, 12)), form)
    assert (decode(data, PixelRule(12), "x") == by_pillow(data, 12)).all()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF"])
@pytest.mark.parametrize("share", [0, 0.05, 0.5, 0.9])
def test_truncated_is_one_line(make, form, share, one_line):
    data = saved(Image.fromarray(make.noise(6, 40, 40)), form)
    message = one_line(decode, data[: int(len(data) * share)], RULE, "a/b.jpg")
    assert message.startswith("a/b.jpg: ")


def test_not_an_image_and_formats_that_could_run_programs(one_line, make):
    assert "not an image" in one_line(decode, b"hello" * 100, RULE, "x.jpg")
    eps = saved(Image.fromarray(make.noise(7)), "EPS")
    assert "not an image" in one_line(decode, eps, RULE, "x.jpg")
    floats = saved(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF")
    assert "floating" in one_line(decode, floats, RULE, "x.tif")


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_bombs_are_refused_unseen(form, one_line, monkeypatch):
    data = saved(Image.new("L", (70, 70)), form)
    monkeypatch.setattr(module, "MOST_PIXELS", 4000)
    assert "unfolds" in one_line(decode, data, RULE, "x")
    monkeypatch.undo()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)  # Pillow's warning stays in
    decode(data, RULE, "x")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    if form == "PNG":
        assert "unfolds" in one_line(decode, data, RULE, "x")


def test_warnings_stay_in_across_threads(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    data = saved(Image.new("L", (70, 70)), "PNG")
    before = list(warnings.filters)
    failures = []

    def work():
        try:
            for _ in range(50):
                decode(data, RULE, "x")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(warnings.filters) == before


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_is_an_image_or_a_data_error(make, data):
    form = data.draw(st.sampled_from(["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF"]))
    whole = bytearray(saved(Image.fromarray(make.noise(8, 16, 16)), form))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert decode(bytes(whole), RULE, "x").shape == (3, 8, 8)
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017 (either outcome is right)


@pytest.mark.parametrize("shape", [(40, 24), (24, 40), (40, 40), (9, 16), (17, 16), (31, 8)])
@pytest.mark.parametrize("form", ["PNG", "JPEG", "L"])
def test_crop_and_pad(make, shape, form):
    """Against Pillow's plain resize: of slices, where the border's filter sees no neighbours, and of a box; pasted."""
    image = Image.fromarray(make.noise(3, *shape))
    if form == "L":
        image = image.convert("L")
    data = saved(image, "PNG" if form == "L" else form)
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    height, width = shape
    side, longer = min(shape), max(shape)
    top, left = (height - side) / 2, (width - side) / 2
    found = decode(data, PixelRule(16, "crop"), "x").transpose(1, 2, 0)
    box = (left, top, left + side, top + side)
    assert (found == np.asarray(Image.fromarray(pixels).resize((16, 16), Image.Resampling.BICUBIC, box))).all()
    if top % 1 == left % 1 == 0:  # the square lies on whole pixels
        square = Image.fromarray(pixels[int(top) : int(top) + side, int(left) : int(left) + side])
        inner = np.s_[2:-2, 2:-2]
        plain = np.asarray(square.resize((16, 16), Image.Resampling.BICUBIC))[inner]
        assert np.abs(found[inner].astype(int) - plain).max() <= 4  # Pillow may round columns and rows in another order
    high, wide = round(16 * height / longer), round(16 * width / longer)
    small = np.asarray(Image.fromarray(pixels).resize((wide, high), Image.Resampling.BICUBIC))
    found = decode(data, PixelRule(16, "pad"), "x").transpose(1, 2, 0)
    top, left = round((16 - high) / 2), round((16 - wide) / 2)
    assert (found[top : top + high, left : left + wide] == small).all()
    outside = np.ones((16, 16), bool)
    outside[top : top + high, left : left + wide] = False
    assert (found[outside] == 128).all()


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_images_of_the_size_are_left_alone_and_any_shape_is_taken(make, resize):
    pixels = make.noise(4, 16, 16)
    assert (fit(pixels, PixelRule(16, resize)) == pixels.transpose(2, 0, 1)).all()
    for shape in ((1, 1), (1, 500), (500, 1)):
        assert fit(make.noise(4, *shape), PixelRule(16, resize)).shape == (3, 16, 16)


def test_unknown_rules_are_refused():
    for bad in ({"size": 0}, {"size": 8, "resize": "stretch"}, {"size": 8, "filter": "nearest"}):
        with pytest.raises(UsageError):
            PixelRule(**bad)


def test_real_jpegs_have_pillows_pixels(cifar10_jpeg):
    wanted = {f"train/{c}/{i:04}.jpg" for c in ("airplane", "cat") for i in range(100)}
    compared = 0
    for _, data in read_members(cifar10_jpeg, wanted):
        assert (decode(data, PixelRule(32), "x") == by_pillow(data, 32)).all()
        compared += 1
    assert compared == 200
