"""The words that take pictures: decoded and resized by Pillow, cut and padded by slices.

Rule: four formats and no other parser; a picture's size is read from its header and judged before a pixel is decoded.
Runs only inside a worker: the parsers are C and the bytes are a stranger's.
"""

import io
import warnings
from typing import Any, Final

import numpy as np

from dimnode.errors import RunFailed
from dimnode.exec.mapping import Array
from dimnode.exec.transforms.arrays import Words
from dimnode.exec.transforms.values import BAD_IMAGE, IMAGE_TOO_LARGE, NO_EXTRA, UNFIT_VALUE, axis_of, fail
from dimnode.limits import LIMITS

FORMATS: Final = ("PNG", "JPEG", "WEBP", "BMP")
_MODES: Final = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
_ORIENTATION: Final = 0x0112
_TURNS: Final = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
"""EXIF orientation to Pillow's transpose methods, as PIL.ImageOps.exif_transpose has them."""


def imported() -> bool:
    """Import all that will be needed, once, before the walls stand. False when Pillow is not installed."""
    try:
        from PIL import BmpImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin  # noqa: F401
    except ImportError:
        return False
    Image.preinit()
    Image.MAX_IMAGE_PIXELS = LIMITS.transforms.image_pixels_max
    return True


def _pillow() -> Any:
    if not imported():
        fail(NO_EXTRA, "this node cannot read pictures", "pip install 'dimnode[image]'")
    from PIL import Image

    return Image


def decode_image(op: Words, raw: bytes) -> Array:
    """uint8 [height, width, channels]. Raises `RunFailed` for what is no picture or too large a one."""
    library = _pillow()
    if not raw:
        fail(BAD_IMAGE, "the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return _decoded(op, library, raw)
    except library.UnidentifiedImageError:
        fail(BAD_IMAGE, f"the file is none of {', '.join(FORMATS)}")
    except (library.DecompressionBombError, library.DecompressionBombWarning):
        fail(IMAGE_TOO_LARGE, f"the picture has more than {LIMITS.transforms.image_pixels_max} pixels")
    except (MemoryError, RunFailed):
        raise
    except Exception as error:  # noqa: BLE001 boundary: plugins raise whatever a broken file makes of their arithmetic
        fail(BAD_IMAGE, f"the picture is broken: {str(error)[:120] or type(error).__name__}")


def _decoded(op: Words, library: Any, raw: bytes) -> Array:
    with library.open(io.BytesIO(raw), formats=FORMATS) as picture:
        width, height = picture.size
        most = LIMITS.transforms
        if width * height > most.image_pixels_max or max(width, height) > most.image_side_max:
            fail(IMAGE_TOO_LARGE, f"the picture has {width} x {height} pixels", f"at most {most.image_pixels_max}")
        if picture.mode not in _MODES:
            fail(BAD_IMAGE, f"pictures of the kind {picture.mode} are not read", "save it with 8 bits per channel")
        turn = picture.getexif().get(_ORIENTATION, 1) if op.get("orient", True) else 1
        plain = picture.convert("L" if op["colour"] == "grey" else "RGB")
        if turn in _TURNS:
            plain = plain.transpose(_TURNS[turn])
        if op["colour"] == "bgr":
            plain = library.merge("RGB", plain.split()[::-1])  # four times as fast as NumPy's copy
        found = np.asarray(plain, dtype=np.uint8)
    return found[:, :, None] if op["colour"] == "grey" else found


def resize(op: Words, array: Array, lead: int) -> Array:
    """uint8 [height, width, channels] to the wanted size, by Pillow's filters."""
    library = _pillow()
    if lead:
        return np.stack([resize(op, item, 0) for item in array])
    _need_picture(array)
    height, width = array.shape[:2]
    if "height" in op:
        wanted = (op["height"], op["width"])
    else:
        side = min(height, width) if "shorter" in op else max(height, width)
        size = op.get("shorter", op.get("longer"))
        wanted = (max(1, size * height // side), max(1, size * width // side))
    if wanted[0] * wanted[1] > LIMITS.transforms.image_pixels_max:
        fail(IMAGE_TOO_LARGE, f"resized to {wanted[1]} x {wanted[0]} pixels")
    flat = array[:, :, 0] if array.shape[2] == 1 else array
    method = library.Resampling[op["filter"].upper()]
    found = np.asarray(library.fromarray(flat).resize((wanted[1], wanted[0]), method), dtype=np.uint8)
    return found[:, :, None] if array.shape[2] == 1 else found


def centre_crop(op: Words, array: Array, lead: int) -> Array:
    """The middle `height` x `width` of the first two axes."""
    for axis, size in ((0, op["height"]), (1, op["width"])):
        place = axis_of(array, axis, lead)
        spare = array.shape[place] - size
        if spare < 0:
            fail(UNFIT_VALUE, f"centre_crop of {size} from {array.shape[place]} pixels", "resize comes first")
        start = round(spare / 2) if op.get("rounding") == "half_even" else spare // 2
        array = array[(slice(None),) * place + (slice(start, start + size),)]
    return np.ascontiguousarray(array)


def pad_image(op: Words, array: Array, lead: int) -> Array:
    """A frame of one value around a smaller picture; in the centre, or at the first row and column."""
    widths = [(0, 0)] * array.ndim
    for axis, size in ((0, op["height"]), (1, op["width"])):
        place = axis_of(array, axis, lead)
        spare = size - array.shape[place]
        if spare < 0:
            fail(UNFIT_VALUE, f"pad_image of {array.shape[place]} pixels to {size}", "resize comes first")
        before = spare // 2 if op.get("place", "centre") == "centre" else 0
        widths[place] = (before, spare - before)
    return np.pad(array, widths, constant_values=op["value"])


def _need_picture(array: Array) -> None:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (1, 3) or 0 in array.shape:
        fail(UNFIT_VALUE, f"resize of {array.dtype} {list(array.shape)}", "it takes uint8 [height, width, 1 or 3]")
