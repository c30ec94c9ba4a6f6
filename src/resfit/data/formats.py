"""Which image files are read, by name and by their first bytes, and what the others are called when they are refused."""

from importlib.util import find_spec

# Only these decoders may look at a file, whatever its name: Pillow would hand an EPS in disguise to Ghostscript.
FORMATS: tuple[str, ...] = (
    "JPEG",
    "PNG",
    "BMP",
    "DIB",
    "GIF",
    "WEBP",
    "TIFF",
    "PPM",
    *(("AVIF",) if find_spec("PIL._avif") else ()),
)
EXTENSIONS: tuple[str, ...] = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".apng",
    ".bmp",
    ".dib",
    ".gif",
    ".webp",
    ".tif",
    ".tiff",
)
EXTENSIONS += (".pbm", ".pgm", ".ppm", ".pnm", ".avif")

# Images too, which are not read: they are named, never passed over in silence.
UNREAD: tuple[str, ...] = (
    ".heic",
    ".heif",
    ".jxl",
    ".jp2",
    ".j2k",
    ".svg",
    ".svgz",
    ".ico",
    ".psd",
    ".eps",
    ".pdf",
    ".tga",
    ".exr",
)
UNREAD += (".hdr", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".dcm")

_MAGIC = (
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"\xc5\xd0\xd3\xc6", "EPS"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"\x00\x00\x01\x00", "an icon (ICO)"),
    (0, b"\x1f\x8b", "compressed by gzip"),
    (0, b"PK\x03\x04", "a zip archive"),
    (128, b"DICM", "DICOM"),
    (4, b"ftypheic", "HEIC"),
    (4, b"ftypheix", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftypmsf1", "HEIF"),
    (4, b"ftypavif", "AVIF, which this Pillow was built without"),
    (4, b"ftypavis", "AVIF, which this Pillow was built without"),
    (4, b"ftyp", "a video"),
)


def refused_format(data: bytes) -> str:
    """Return what bytes that no decoder of `FORMATS` knows are: "HEIC, not an image of a known format", say."""
    name = next((name for at, magic, name in _MAGIC if data[at : at + len(magic)] == magic), "")
    if not name and b"<svg" in data[:1000].lower():
        name = "SVG"
    elif not name and data[:1000].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        name = "a web page"
    return f"{name}, not an image of a known format" if name else "not an image of a known format"
