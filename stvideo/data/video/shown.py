"""Tell how many frames of a packet are shown, by the first bits of its pictures.

Some codecs store pictures that serve as references only (hidden VP8, VP9 and AV1 frames), and MPEG-4 encoders write two
pictures into one packet and placeholders that hold none, to fit B-frames into AVI.
"""

from __future__ import annotations

from typing import Any

_VOP, _VOL = b"\0\0\1\xb6", b"\0\0\1"  # start codes of MPEG-4 pictures, and of layers if 0x20 .. 0x2f follows
_SMALLEST = 8  # bytes of an MPEG-4 picture; DivX marks dropped ones by fewer


class ShownFrames:
    """Count the shown frames of the packets of one stream: 1, 0 where a packet hides its picture, 2 where it packs two.

    Args:
        codec: FFmpeg's name of the decoder.
        extradata: what the container stores of the stream beside its packets.

    Attributes:
        picture_size: (width, height) by the first VP8 key frame, where FFmpeg knows only what the container says.
    """

    def __init__(self, codec: str, extradata: bytes | None) -> None:
        self._count = {
            "vp8": self._vp8,
            "vp9": _vp9,
            "av1": _av1,
            "libdav1d": _av1,
            "mpeg4": self._mpeg4,
        }.get(codec)
        self._time_bits = _time_bits(extradata or b"") if codec == "mpeg4" else None
        self.picture_size: tuple[int, int] | None = None

    def __call__(self, packet: Any) -> int:
        """Count the frames of ``packet`` that are shown."""
        return 1 if self._count is None else self._count(bytes(packet))

    def _vp8(self, data: bytes) -> int:
        if self.picture_size is None and not data[0] & 1 and len(data) >= 10:  # a key frame
            width, height = (int.from_bytes(data[place : place + 2], "little") & 0x3FFF for place in (6, 8))
            self.picture_size = width, height
        return data[0] >> 4 & 1

    def _mpeg4(self, data: bytes) -> int:
        self._time_bits = self._time_bits or _time_bits(data)
        pictures = data.split(_VOP)[1:]
        if not pictures or self._time_bits is None:
            return int(len(data) >= _SMALLEST)
        return sum(_is_coded(picture, self._time_bits) for picture in pictures)


def _vp9(data: bytes) -> int:
    """Read the head of a VP9 picture: marker, profile (2 bits or 3), show_existing_frame, frame_type, show_frame."""
    if data[-1] >> 5 == 0b110:  # a superframe, whose last picture is shown
        return 1
    shift = 1 if data[0] >> 4 & 3 == 3 else 0
    return int(bool(data[0] >> (3 - shift) & 1) or bool(data[0] >> (1 - shift) & 1))


def _av1(data: bytes) -> int:
    """Look for the header of a shown frame among the OBUs of an AV1 packet."""
    place = 0
    while place < len(data):
        head = data[place]
        place += 2 if head & 4 else 1
        size = len(data) - place
        if head & 2:
            size = shift = 0
            while place < len(data):
                byte = data[place]
                size, shift, place = size | (byte & 127) << shift, shift + 7, place + 1
                if byte < 128:
                    break
        kind, first = head >> 3 & 15, data[place] if size and place < len(data) else 0
        if kind == 1 and first & 8:  # a still picture, whose header is a reduced one
            return 1
        if kind in (3, 6) and first & 0x90:  # show_existing_frame or show_frame
            return 1
        place += size
    return 0


class _Bits:
    """Read bits from the left; behind the end come zeros."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data[:64], "big") << 512, len(data[:64]) * 8 + 512

    def read(self, count: int) -> int:
        self._left -= count
        return self._value >> max(self._left, 0) & (1 << count) - 1


def _time_bits(data: bytes) -> int | None:
    """Bits of a picture's time in an MPEG-4 stream, as its video object layer says; None if ``data`` has none."""
    for part in data.split(_VOL)[1:]:
        if not part or part[0] >> 4 != 2:
            continue
        bits, version = _Bits(part[1:]), 1
        bits.read(9)
        if bits.read(1):
            version = bits.read(4)
            bits.read(3)
        if bits.read(4) == 15:
            bits.read(16)  # shape of its pixels
        if bits.read(1):
            bits.read(3)
            if bits.read(1):
                bits.read(79)  # its decoder's buffer
        if bits.read(2) == 3 and version != 1:
            bits.read(4)
        bits.read(1)
        return max(1, (bits.read(16) - 1).bit_length())
    return None


def _is_coded(picture: bytes, time_bits: int) -> bool:
    """Whether an MPEG-4 picture is more than a placeholder."""
    bits = _Bits(picture[:16])
    bits.read(2)
    seconds = 0
    while bits.read(1) and seconds < 100:
        seconds += 1
    bits.read(1 + time_bits + 1)
    return bool(bits.read(1))
