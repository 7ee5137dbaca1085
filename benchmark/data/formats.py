"""The file formats of the data sets: MNIST's idx, CIFAR-10's records, the Frey faces' MATLAB file. No pickles.

Readers raise ``Damaged`` with what is wrong in words that fit behind a file's name: "truncated: ...".
"""

import gzip
import io
import math
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np

from bism.errors import first_line

TRUNCATED, CORRUPTED, WRONG = "truncated", "corrupted", "wrong"
CIFAR_RECORD = 1 + 3 * 32 * 32  # bytes: a label, then 1,024 each of red, green and blue, row by row
_LARGEST = 64 * 2**20  # bytes; the largest idx file has 47 million, and a bomb in a .gz must not fill the memory
_MATLAB = b"MATLAB 5.0"


class Damaged(Exception):
    """A file is not what it should be: ``kind`` is truncated, corrupted or wrong, ``detail`` says how."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind, self.detail = kind, detail


def not_a_web_page(start: bytes) -> None:
    """Refuses the page that a server sends with status 200 in place of a file: the commonest wrong download."""
    if start.lstrip()[:1] == b"<":
        raise Damaged(WRONG, "it is a web page, perhaps a server's error message, and not data")


def unpacked(raw: bytes) -> bytes:
    """What a gzip file holds; bytes that are not gzip's are returned as they are (browsers unpack on the way).

    Raises:
        Damaged: the gzip file ends early, or its own checksum disagrees.
    """
    if not raw:
        raise Damaged(TRUNCATED, "it is empty")
    if not raw.startswith(b"\x1f\x8b"):
        return raw
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as file:
            content = file.read(_LARGEST + 1)
    except EOFError:
        raise Damaged(TRUNCATED, f"the gzip data end early, after {len(raw):,} bytes") from None
    except (OSError, zlib.error) as error:
        raise Damaged(CORRUPTED, f"the gzip data cannot be unpacked ({error})") from None
    if len(content) > _LARGEST:
        raise Damaged(WRONG, f"it unpacks to more than {_LARGEST:,} bytes")
    return content


def parse_idx(content: bytes) -> np.ndarray:
    """The uint8 array of an idx file: 0, 0, 8 (for uint8), the number of dimensions, big-endian sizes, the values.

    Raises:
        Damaged: another magic number, or fewer or more values than the sizes announce.
    """
    not_a_web_page(content[:100])
    if content[:3] != b"\0\0\x08"[: len(content)] or (len(content) > 3 and not 1 <= content[3] <= 3):
        raise Damaged(WRONG, f"it starts with {content[:4].hex(' ')}, and an idx file of bytes with 00 00 08 01 to 03")
    start = 4 + 4 * content[3] if len(content) > 3 else 4
    if len(content) < start:
        raise Damaged(TRUNCATED, f"it ends within its header, after {len(content)} bytes")
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    announced, there = math.prod(shape), len(content) - start
    if there < announced:
        raise Damaged(TRUNCATED, f"{there:,} of the {announced:,} values that its header announces")
    if there > announced:
        raise Damaged(CORRUPTED, f"{there:,} values, and its header announces {announced:,}")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def read_idx(path: Path) -> np.ndarray:
    """The uint8 array of an idx file, packed by gzip or not."""
    return parse_idx(unpacked(path.read_bytes()))


def read_cifar(path: Path) -> np.ndarray:
    """CIFAR-10's records, uint8 [n, 3073]: column 0 is the label, the rest is an image [3, 32, 32].

    Raises:
        Damaged: the file ends within a record, or has a label above 9.
    """
    records = np.fromfile(path, dtype=np.uint8)
    not_a_web_page(records[:100].tobytes())
    if len(records) % CIFAR_RECORD:
        raise Damaged(TRUNCATED, f"{len(records):,} bytes are no whole number of records of {CIFAR_RECORD:,}")
    records = records.reshape(-1, CIFAR_RECORD)
    if len(records) and records[:, 0].max() > 9:
        raise Damaged(WRONG, "it has labels above 9, so it is no file of CIFAR-10's binary version")
    return records


def read_npy(path: Path) -> np.ndarray:
    """The numbers in an ``.npy`` file, as they are, mapped into memory: nothing is read, and nothing unpickled.

    Raises:
        Damaged: another format, an array of objects, or less than its header announces.
    """
    with path.open("rb") as file:
        _not_another_format(file.read(100))
        file.seek(0)
        try:
            with warnings.catch_warnings():  # of Python 2's headers, and of what is no Python at all
                warnings.simplefilter("ignore")
                version = np.lib.format.read_magic(file)
                known = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                shape, fortran, dtype = known.get(version, np.lib.format.read_array_header_2_0)(file)
            announced, there = math.prod(shape) * dtype.itemsize, path.stat().st_size - file.tell()
        except Exception as error:  # numpy raises many kinds for damaged headers
            raise Damaged(WRONG, f"it has no header of an .npy file ({first_line(error)[:200]})") from None
        start = file.tell()
    if dtype.hasobject:
        raise Damaged(WRONG, "it holds Python objects, which would have to be unpickled, and must hold numbers")
    if abs(announced) > 2**80:  # nor can a number of thousands of digits be printed
        raise Damaged(TRUNCATED, f"{there:,} of the far more bytes that its header announces")
    if any(length < 0 for length in shape) or there < announced:
        raise Damaged(TRUNCATED, f"{there:,} of the {announced:,} bytes that its header announces")
    try:
        if not announced:
            return np.empty(shape, dtype)
        return np.memmap(path, dtype, "r", start, shape, "F" if fortran else "C")
    except (ValueError, OverflowError, TypeError) as error:  # more dimensions, or longer ones, than arrays have
        raise Damaged(WRONG, f"its header announces no possible array: {first_line(error)}") from None


_FORMATS = {
    b"PK\x03\x04": "an .npz archive, and must be one array: np.save writes one",
    b"\x1f\x8b": "packed by gzip: unpack it first",
    b"\x89HDF": "an HDF5 file: np.save writes its array as .npy",
    b"PAR1": "a Parquet file: np.save writes its columns as .npy",
    b"\x80": "a pickle, which is not read: np.save writes an array",
}


def _not_another_format(start: bytes) -> None:
    """Refuses by name what data often come in."""
    not_a_web_page(start)
    for magic, what in _FORMATS.items():
        if start.startswith(magic):
            raise Damaged(WRONG, f"it is {what}")
    if start.strip() and all(9 <= byte <= 13 or 32 <= byte < 127 for byte in start):
        raise Damaged(WRONG, "it is a text, such as CSV: np.save(file, np.loadtxt(text, delimiter=',')) makes it .npy")


def read_freyface(path: Path) -> np.ndarray:
    """The Frey faces' pixels, uint8 [faces, 560], which the MATLAB file holds as 'ff' [560, faces].

    Raises:
        Damaged: not a MATLAB file, one that ends early, or one without this array.
    """
    from scipy.io import loadmat

    _check_matlab(path.read_bytes())
    try:
        pixels = loadmat(path, appendmat=False)["ff"]
    except KeyError:
        raise Damaged(WRONG, "it has no array 'ff'") from None
    except Exception as error:  # scipy raises many kinds for damaged files
        raise Damaged(CORRUPTED, f"it cannot be read as a MATLAB file ({error})") from None
    if pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise Damaged(WRONG, f"its 'ff' is {pixels.dtype} {list(pixels.shape)}, and must be uint8 [560, 1965]")
    return np.ascontiguousarray(pixels.T)


def _check_matlab(raw: bytes) -> None:
    """Refuses a file that is no MATLAB 5 file, or whose last element is longer than what is left of the file."""
    not_a_web_page(raw[:100])
    if not raw.startswith(_MATLAB[: len(raw)]):
        raise Damaged(WRONG, "it is not a MATLAB 5 file")
    if len(raw) < 136:
        raise Damaged(TRUNCATED, f"it ends within its header, after {len(raw)} bytes")
    order = "<" if raw[126:128] == b"IM" else ">"
    position = 128
    while position + 8 <= len(raw):
        position += 8 + int(struct.unpack(f"{order}I", raw[position + 4 : position + 8])[0])
    if position > len(raw):
        raise Damaged(TRUNCATED, f"{len(raw):,} bytes, and its header announces {position:,}")
