"""How a graph and its tensors travel: versioned JSON, and safetensors beside it. Nothing in it can run. No torch."""

from interpose.wire.feeds import decode_feed as decode_feed, encode_feed as encode_feed
from interpose.wire.files import Format as Format
from interpose.wire.graphs import decode as decode, encode as encode
