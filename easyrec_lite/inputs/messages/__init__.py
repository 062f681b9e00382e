"""Messages: from the values of a message queue to typed rows. Pure functions of bytes; nothing here knows a broker."""

from easyrec_lite.inputs.messages.building import build_decoder
from easyrec_lite.inputs.messages.decoder import BadMessageRow, Decoded, Decoder

__all__ = ["BadMessageRow", "Decoded", "Decoder", "build_decoder"]
