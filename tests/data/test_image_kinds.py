"""Kinds of image: each is decoded to the pixels it was made from, or refused in one line, by the rule of docs/design.md.

What Pillow cannot write (16 bits a channel, Adam7, RLE, top-down) is written here by the formats' own definitions: PNG (W3C
2003), TIFF 6.0 (Adobe 1992), Microsoft's BMP headers, Netpbm. What is lossy is compared within a few levels.
"""

import io
import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image, ImageCms

from resfit.cli import main
from resfit.data.decode import decode
from resfit.data.formats import FORMATS, UNREAD
from resfit.data.images import PixelRule
from resfit.errors import DataError

SIZE = 8
RULE = PixelRule(SIZE)


def colours(seed: int = 5, channels: int = 3) -> np.ndarray:
    """Smooth pixels, uint8 (8, 8, channels)."""
    small = np.random.default_rng(seed).integers(0, 256, (3, 3, channels), np.uint8)
    bands = [Image.fromarray(small[:, :, c]).resize((SIZE, SIZE), Image.Resampling.BICUBIC) for c in range(channels)]
    return np.stack([np.asarray(band) for band in bands], axis=2)


RGB = colours()
GREY = colours(6, 1)[:, :, 0]
ALPHA = colours(7, 1)[:, :, 0]
DEEP = np.random.default_rng(8).integers(0, 65536, (SIZE, SIZE, 4), np.uint16)
FLAT = np.full((SIZE, SIZE, 3), (200, 80, 30), np.uint8)


class Kind(NamedTuple):
    """data() makes the file; expected: (8, 8) or (8, 8, 3) of what it must be within `near` levels, or words of the refusal."""

    data: Callable[[], bytes]
    expected: np.ndarray | str
    near: int = 0


def saved(
    image: np.ndarray | Image.Image, form: str = "PNG", mode: str | None = None, **options
) -> Callable[[], bytes]:
    def make() -> bytes:
        file = io.BytesIO()
        made = image if isinstance(image, Image.Image) else Image.fromarray(image)
        (made.convert(mode) if mode else made).save(file, form, **options)
        return file.getvalue()

    return make


def over_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha.astype(float)[..., None] / 255
    return np.rint(pixels.reshape(SIZE, SIZE, -1) * share + 255 * (1 - share))


# --- PNG by hand ------------------------------------------------------------------------------------------------------

ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(pixels: np.ndarray, bits: int, colour: int, adam7: bool = False, extra: bytes = b"") -> bytes:
    """A PNG of (H, W, C) samples: 8 or 16 bits a sample, or fewer of one channel."""
    height, width = pixels.shape[:2]
    rows = b""
    for top, left, down, right in ADAM7 if adam7 else ((0, 0, 1, 1),):
        part = pixels[top::down, left::right]
        for row in part if part.size else ():
            if bits < 8:
                levels = row.ravel()[:, None] >> np.arange(bits - 1, -1, -1) & 1
                rows += b"\0" + np.packbits(levels.astype(np.uint8).ravel()).tobytes()
            else:
                rows += b"\0" + row.astype(">u2" if bits == 16 else np.uint8).tobytes()
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, int(adam7))
    parts = chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def big_png(width: int, height: int) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


# --- TIFF, BMP and JPEG by hand ---------------------------------------------------------------------------------------


def tiff(pixels: np.ndarray, bits: int, photometric: int, order: str = "<") -> bytes:
    """An uncompressed TIFF of one strip, (H, W, C) samples of whole bytes."""
    samples = pixels.shape[2]
    data = pixels.astype(f"{order}u{bits // 8}").tobytes()
    depths = struct.pack(f"{order}{samples}H", *[bits] * samples)
    tags = [(256, 4, 1, pixels.shape[1]), (257, 4, 1, pixels.shape[0]), (258, 3, samples, bits if samples == 1 else 8)]
    tags += [(259, 3, 1, 1), (262, 3, 1, photometric), (273, 4, 1, 16), (277, 3, 1, samples)]
    tags += [(278, 4, 1, pixels.shape[0]), (279, 4, 1, len(data))]
    entries = b""
    for tag, kind, count, value in tags:
        short = kind == 3 and not (tag == 258 and samples > 1)
        entries += struct.pack(f"{order}HHI", tag, kind, count)
        entries += struct.pack(f"{order}HH", value, 0) if short else struct.pack(f"{order}I", value)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 16 + len(data)) + depths.ljust(8, b"\0")
    return head + data + struct.pack(f"{order}H", len(tags)) + entries + b"\0\0\0\0"


def bmp(data: bytes, bits: int, height: int = SIZE, compression: int = 0, palette: bytes = b"") -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, SIZE, height, 1, bits, compression, len(data), 0, 0, len(palette) // 4, 0)
    at = 14 + len(head) + len(palette)
    return b"BM" + struct.pack("<IHHI", at + len(data), 0, 0, at) + head + palette + data


def rle8() -> bytes:
    """Eight rows, bottom first: three of colour 1 and five of colour 2, each as runs."""
    return bmp(
        b"\x03\x01\x05\x02\0\0" * SIZE + b"\0\1", 8, compression=1, palette=b"\0\0\0\0\x0a\x14\x1e\0\x28\x32\x3c\0"
    )


def five_six_five() -> bytes:
    levels = RGB.astype(np.uint16)
    packed = (levels[..., 0] >> 3) << 11 | (levels[..., 1] >> 2) << 5 | levels[..., 2] >> 3
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    return bmp(packed[::-1].astype("<u2").tobytes(), 16, compression=3, palette=masks)


def cmyk_to_rgb(cmyk: np.ndarray) -> np.ndarray:
    ink = cmyk.astype(float) / 255
    return np.rint(255 * (1 - ink[..., :3]) * (1 - ink[..., 3:]))


INK = np.tile(np.array((40, 140, 90, 60), np.uint8), (SIZE, SIZE, 1))


def ycck() -> bytes:
    """Adobe's YCCK: the file of CMYK whose marker says that the first three are Y, Cb, Cr."""
    data = bytearray(saved(Image.fromarray(INK, "CMYK"), "JPEG", quality=100)())
    data[data.index(b"Adobe") + 11] = 2
    return bytes(data)


def from_ycck() -> np.ndarray:
    """What it holds by the definition (ITU-T T.872): stored are 255 - CMYK; of those the first three are turned to C, M, Y."""
    y, cb, cr, _ = (255 - INK[0, 0]).astype(float)
    r, g, b = y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), y + 1.772 * (cb - 128)
    turned = np.clip([r, g, b, INK[0, 0, 3]], 0, 255)
    return cmyk_to_rgb(np.tile(turned, (SIZE, SIZE, 1)))


def jpeg(pixels: np.ndarray = RGB, **options) -> bytes:
    return saved(pixels, "JPEG", **({"quality": 95, "subsampling": 0} | options))()


def of_jpeg(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def twelve_bits() -> bytes:
    data = bytearray(jpeg())
    data[data.index(b"\xff\xc0") + 4] = 12
    return bytes(data)


def turned(data: bytes) -> bytes:
    """One bit of the compressed pixels, so that their checksum no longer holds."""
    at = data.index(b"IDAT") + 40
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def huge_jpeg() -> bytes:
    data = bytearray(jpeg())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 65500, 65500)
    return bytes(data)


def frames(form: str, **options) -> Callable[[], bytes]:
    others = [Image.fromarray(np.full_like(FLAT, level)) for level in (0, 255)]
    return saved(FLAT, form, save_all=True, append_images=others, **options)


def palette(**options) -> Callable[[], bytes]:
    """Columns 0 to 7 of colours 10k, 20k, 30k."""
    image = Image.fromarray(np.tile(np.arange(SIZE, dtype=np.uint8), (SIZE, 1)), "P")
    image.putpalette([level for k in range(SIZE) for level in (10 * k, 20 * k, 30 * k)])
    return saved(image, **options)


COLUMNS = np.tile(np.arange(SIZE)[:, None] * np.array([10, 20, 30]), (SIZE, 1, 1))
STEPS = np.array([0, 0, 64, 128, 255, 255, 255, 255])
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()  # anything that would change colours
FTYP = b"\0\0\0\x18ftyp"
BITS = (GREY > 128).astype(np.uint8)
KEYED = np.where(np.tile(np.arange(SIZE)[None, :, None] == 3, (SIZE, 1, 1)), 255, COLUMNS)
SIXTEEN = DEEP[..., :1] // 256

KINDS = {
    "1 bit": Kind(saved(BITS * 255, mode="1"), BITS * 255),
    "2 bits": Kind(lambda: png(GREY[..., None] >> 6, 2, 0), (GREY >> 6) * 85),
    "4 bits": Kind(lambda: png(GREY[..., None] >> 4, 4, 0), (GREY >> 4) * 17),
    "grey": Kind(saved(GREY), GREY),
    "grey and alpha": Kind(saved(np.dstack([GREY, ALPHA])), over_white(GREY, ALPHA), 1),
    "palette": Kind(palette(), COLUMNS),
    "palette, one colour clear": Kind(palette(transparency=3), KEYED),
    "palette, alpha a colour": Kind(
        palette(transparency=bytes(STEPS.tolist())), over_white(COLUMNS, np.tile(STEPS, (SIZE, 1))), 1
    ),
    "RGB": Kind(saved(RGB), RGB),
    "RGBA": Kind(saved(np.dstack([RGB, ALPHA])), over_white(RGB, ALPHA), 1),
    "RGB, one colour clear": Kind(saved(FLAT, transparency=(200, 80, 30)), np.full_like(FLAT, 255)),
    "grey, one level clear": Kind(saved(FLAT[..., 0], transparency=200), np.full_like(FLAT, 255)),
    "grey of 16 bits": Kind(lambda: png(DEEP[..., :1], 16, 0), DEEP[..., 0] // 256),
    "grey of 16 bits, one level clear": Kind(
        lambda: png(DEEP[..., :1], 16, 0, extra=chunk(b"tRNS", struct.pack(">H", DEEP[0, 0, 0]))),
        np.where(DEEP[..., 0] == DEEP[0, 0, 0], 255, DEEP[..., 0] // 256),
    ),
    "RGB of 16 bits": Kind(lambda: png(DEEP[..., :3], 16, 2), DEEP[..., :3] // 256),
    "grey and alpha of 16 bits": Kind(
        lambda: png(DEEP[..., :2], 16, 4), over_white(DEEP[..., 0] // 256, DEEP[..., 1] // 256), 1
    ),
    "RGBA of 16 bits": Kind(lambda: png(DEEP, 16, 6), over_white(DEEP[..., :3] // 256, DEEP[..., 3] // 256), 1),
    "interlaced PNG": Kind(lambda: png(RGB, 8, 2, adam7=True), RGB),
    "interlaced PNG of 16 bits": Kind(lambda: png(DEEP[..., :1], 16, 0, adam7=True), SIXTEEN[..., 0]),
    "gamma is passed over": Kind(lambda: png(RGB, 8, 2, extra=chunk(b"gAMA", struct.pack(">I", 10**5))), RGB),
    "a colour profile is passed over": Kind(saved(RGB, icc_profile=PROFILE), RGB),
    "a colour profile in a JPEG too": Kind(lambda: jpeg(icc_profile=PROFILE), of_jpeg(jpeg())),
    "TIFF": Kind(saved(RGB, "TIFF"), RGB),
    "TIFF by LZW": Kind(saved(RGB, "TIFF", compression="tiff_lzw"), RGB),
    "TIFF by deflate": Kind(saved(RGB, "TIFF", compression="tiff_adobe_deflate"), RGB),
    "TIFF of a fax": Kind(saved(BITS * 255, "TIFF", mode="1", compression="group4"), BITS * 255),
    "TIFF where white is none": Kind(lambda: tiff(GREY[..., None], 8, 0), 255 - GREY),
    "TIFF of 16 bits": Kind(lambda: tiff(DEEP[..., :1], 16, 1), DEEP[..., 0] // 256),
    "TIFF of 16 bits, big end first": Kind(lambda: tiff(DEEP[..., :1], 16, 1, ">"), DEEP[..., 0] // 256),
    "TIFF of RGB in 16 bits": Kind(lambda: tiff(DEEP[..., :3], 16, 2), DEEP[..., :3] // 256),
    "TIFF of CMYK": Kind(saved(Image.fromarray(INK, "CMYK"), "TIFF"), cmyk_to_rgb(INK), 1),
    "TIFF of YCbCr": Kind(saved(RGB, "TIFF", mode="YCbCr"), RGB, 3),
    # L* 47.1, a* -28, b* -38 (CIE 1976, white D50) by Lindbloom's matrix to sRGB: 0, 126.2, 175.1
    "TIFF of LAB": Kind(saved(Image.new("LAB", (8, 8), (120, 100, 90)), "TIFF"), np.full_like(FLAT, (0, 126, 175)), 2),
    "TIFF of whole numbers within 16 bits": Kind(saved(DEEP[..., 0].astype(np.int32), "TIFF"), DEEP[..., 0] // 256),
    "TIFF of larger whole numbers": Kind(saved(np.full((8, 8), 70_000, np.int32), "TIFF"), "whole numbers from 70000"),
    "TIFF of numbers below zero": Kind(saved(np.full((8, 8), -3, np.int32), "TIFF"), "whole numbers from -3 to -3"),
    "TIFF of fractions": Kind(saved(GREY.astype(np.float32), "TIFF"), "32-bit floating-point pixels"),
    "TIFF of pages: the first": Kind(frames("TIFF"), FLAT),
    "CMYK JPEG by Adobe": Kind(saved(Image.fromarray(INK, "CMYK"), "JPEG", quality=100), cmyk_to_rgb(INK), 2),
    "YCCK JPEG by Adobe": Kind(ycck, from_ycck(), 3),
    "JPEG 4:4:4": Kind(lambda: jpeg(subsampling=0), RGB, 9),
    "JPEG 4:2:2": Kind(lambda: jpeg(FLAT, subsampling=1), FLAT, 3),
    "JPEG 4:2:0": Kind(lambda: jpeg(FLAT, subsampling=2), FLAT, 3),
    "progressive JPEG": Kind(lambda: jpeg(progressive=True), of_jpeg(jpeg())),
    "JPEG with restarts": Kind(lambda: jpeg(restart_marker_blocks=1), of_jpeg(jpeg())),
    "JPEG of RGB": Kind(lambda: jpeg(keep_rgb=True), RGB, 6),
    "grey JPEG": Kind(lambda: saved(GREY, "JPEG", quality=95)(), GREY, 6),
    "JPEG with more behind it": Kind(lambda: jpeg() + b"\0garbage" * 20, of_jpeg(jpeg())),
    "JPEG with a comment": Kind(lambda: jpeg(comment=b"x" * 999), of_jpeg(jpeg())),
    "JPEG cut off": Kind(lambda: jpeg()[:-40], "truncated"),
    "JPEG without its end": Kind(lambda: jpeg()[:-2], "truncated"),
    "JPEG of a header alone": Kind(lambda: jpeg()[:200], "cannot be decoded"),
    "JPEG of 12 bits": Kind(twelve_bits, "cannot be decoded"),
    "JPEG of four gigapixels": Kind(huge_jpeg, "unfolds to more than 89,478,485 pixels"),
    "PNG of four gigapixels": Kind(lambda: big_png(60_000, 60_000), "unfolds to more than"),
    "PNG a million wide": Kind(lambda: big_png(10**6, 1000), "unfolds to more than"),
    "PNG of no width": Kind(lambda: big_png(0, 8), "cannot be decoded"),
    "PNG cut off": Kind(lambda: saved(RGB)()[:-60], "cannot be decoded"),
    "PNG with a bit turned": Kind(lambda: turned(saved(RGB)()), "broken data stream"),
    "PNG with a byte too many": Kind(lambda: saved(RGB)().replace(b"IDAT", b"IDAT\1", 1), "cannot be decoded"),
    "animated GIF: the first": Kind(frames("GIF"), FLAT, 3),
    "animated PNG: the first": Kind(frames("PNG"), FLAT),
    "animated WebP: the first": Kind(frames("WEBP", lossless=True), FLAT),
    "GIF, one colour clear": Kind(palette(form="GIF", transparency=3), KEYED),
    "BMP": Kind(saved(RGB, "BMP"), RGB),
    "BMP of 1 bit": Kind(saved(BITS * 255, "BMP", mode="1"), BITS * 255),
    "BMP of a palette": Kind(palette(form="BMP"), COLUMNS),
    "BMP by runs": Kind(rle8, np.tile([[30, 20, 10]] * 3 + [[60, 50, 40]] * 5, (SIZE, 1, 1))),
    "BMP from the top": Kind(lambda: bmp(RGB[..., ::-1].tobytes(), 24, -SIZE), RGB),
    "BMP of 16 bits a pixel": Kind(five_six_five, RGB, 8),
    "BMP whose fourth byte is none": Kind(lambda: bmp(np.dstack([RGB[::-1, :, ::-1], ALPHA * 0]).tobytes(), 32), RGB),
    "PBM": Kind(lambda: b"P4 8 8\n" + np.packbits(1 - BITS).tobytes(), BITS * 255),
    "PGM": Kind(saved(GREY, "PPM"), GREY),
    "PGM of 16 bits": Kind(lambda: b"P5 8 8 65535\n" + DEEP[..., 0].astype(">u2").tobytes(), DEEP[..., 0] // 256),
    "PGM up to 15": Kind(lambda: b"P5 8 8 15\n" + (GREY >> 4).tobytes(), (GREY >> 4) * 17),
    "PPM": Kind(saved(RGB, "PPM"), RGB),
    "PPM in letters": Kind(lambda: b"P3 8 8 255\n" + " ".join(map(str, RGB.ravel())).encode() + b"\n", RGB),
    "PPM of 16 bits, to its maximum": Kind(
        lambda: b"P6 8 8 65535\n" + DEEP[..., :3].astype(">u2").tobytes(), np.rint(DEEP[..., :3] / 65535 * 255)
    ),
    "PFM of fractions": Kind(saved(GREY.astype(np.float32), "PPM"), "32-bit floating-point pixels"),
    "WebP without loss": Kind(saved(RGB, "WEBP", lossless=True), RGB),
    "WebP with loss": Kind(saved(FLAT, "WEBP", quality=95), FLAT, 6),
    "WebP with alpha": Kind(
        saved(np.dstack([RGB, ALPHA]), "WEBP", lossless=True, exact=True), over_white(RGB, ALPHA), 1
    ),
    "one pixel": Kind(saved(FLAT[:1, :1]), FLAT),
    "one pixel high": Kind(saved(FLAT[:1]), FLAT),
    "one pixel wide, 5000 high": Kind(saved(np.tile(FLAT[:, :1], (625, 1, 1))), FLAT),
    "nothing": Kind(lambda: b"", "the file is empty"),
    "one byte": Kind(lambda: b"\xff", "not an image of a known format"),
    "zeros": Kind(lambda: bytes(999), "not an image of a known format"),
    "a text": Kind(lambda: b"hello", "(not an image of a known format)"),
    "an icon": Kind(saved(FLAT, "ICO", sizes=[(8, 8)]), "(an icon (ICO), not an image of a known format)"),
    "JPEG 2000": Kind(saved(RGB, "JPEG2000"), "(JPEG 2000, not an image of a known format)"),
    "JPEG XL": Kind(lambda: b"\xff\x0a" + bytes(90), "(JPEG XL, not"),
    "HEIC": Kind(lambda: FTYP + b"heic" + bytes(90), "(HEIC, not"),
    "HEIF": Kind(lambda: FTYP + b"mif1" + bytes(90), "(HEIF, not"),
    "a film": Kind(lambda: FTYP + b"isom" + bytes(90), "(a video, not"),
    "SVG": Kind(lambda: b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "(SVG, not"),
    "PDF": Kind(saved(RGB, "PDF"), "(PDF, not"),
    "EPS, which would run a program": Kind(saved(RGB, "EPS"), "(PostScript, not"),
    "Photoshop": Kind(lambda: b"8BPS\0\1" + bytes(90), "(a Photoshop document, not"),
    "DICOM": Kind(lambda: bytes(128) + b"DICM" + bytes(90), "(DICOM, not"),
    "a zip": Kind(lambda: b"PK\3\4" + bytes(90), "(a zip archive, not"),
    "gzip": Kind(lambda: b"\x1f\x8b\x08" + bytes(90), "(compressed by gzip, not"),
    "a web page": Kind(lambda: b"\n<!doctype html><title>404", "(a web page, not"),
    "TGA, whose first bytes say nothing": Kind(saved(RGB, "TGA"), "(not an image of a known format)"),
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds(name):
    kind = KINDS[name]
    data = kind.data()
    if isinstance(kind.expected, str):
        with pytest.raises(DataError) as caught:
            decode(data, RULE, "a.jpg")
        message = str(caught.value)
        assert kind.expected in message
        assert message.startswith("a.jpg: ")
        assert "\n" not in message
        assert message.endswith(".")
        return
    expected = kind.expected if kind.expected.ndim == 3 else kind.expected[..., None]
    expected = np.broadcast_to(expected, (SIZE, SIZE, 3)).astype(int)
    found = decode(data, RULE, "a.jpg").transpose(1, 2, 0).astype(int)
    assert np.abs(found - expected).max() <= kind.near


def test_there_are_forty():
    assert len(KINDS) >= 40


# What EXIF 2.32 says of its tag 274: where row 0 and column 0 of the file are in the picture.
UPRIGHT = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: p.swapaxes(0, 1)[:, ::-1],
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: p.swapaxes(0, 1)[::-1],
}


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_orientations(form, orientation):
    """0 and 9 are none: the picture stays as it is."""
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if form == "WEBP" else {"quality": 100, "subsampling": 0} if form == "JPEG" else {}
    found = decode(saved(RGB, form, exif=exif, **options)(), RULE, "x").transpose(1, 2, 0).astype(int)
    expected = UPRIGHT.get(orientation, UPRIGHT[1])(RGB.astype(int))
    assert np.abs(found - expected).max() <= (4 if form == "JPEG" else 0)


def test_avif():
    if "AVIF" not in FORMATS:
        pytest.skip("this Pillow has no AVIF")
    found = decode(saved(FLAT, "AVIF", quality=95)(), RULE, "x").transpose(1, 2, 0).astype(int)
    assert np.abs(found - FLAT).max() <= 6
    clear = np.dstack([FLAT, np.zeros((SIZE, SIZE), np.uint8)])
    assert (decode(saved(clear, "AVIF", quality=95)(), RULE, "x") >= 253).all()


def test_names_do_not_matter_and_those_not_read_are_said(tmp_path, make, capsys):
    """A JPEG called .png is a JPEG; a photograph in .heic is not passed over in silence."""
    make.write_classes(tmp_path / "set", {"ant": 5, "bee": 5})
    (tmp_path / "set/ant/000.png").write_bytes(jpeg())
    for ending, maker in ((".jfif", jpeg), (".JPE", jpeg), (".pnm", saved(RGB, "PPM")), (".apng", frames("PNG"))):
        (tmp_path / f"set/bee/more{ending}").write_bytes(maker())
    for ending in UNREAD:
        (tmp_path / f"set/bee/other{ending}").write_bytes(b"x")
    assert main(["data", "check", str(tmp_path / "set")]) == 0
    assert "14 images of 2 classes" in capsys.readouterr().out
    assert main(["data", "info", str(tmp_path / "set")]) == 0
    said = capsys.readouterr().out.splitlines()[0]
    assert "class folders, 2 classes; passed over, since they are not read: " in said
    assert all(f"1 {ending}" in said for ending in UNREAD)
