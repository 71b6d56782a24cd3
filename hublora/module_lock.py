"""One lock for everything that creates modules, since loading changes how all of torch does that.

While diffusers and transformers load, `torch.nn.Module.register_parameter`, the functions in
`torch.nn.init` and the default dtype are others, in every thread; two loads at a time restore each
other's changes for good (https://github.com/huggingface/diffusers/issues/14347).
"""

from __future__ import annotations

import threading

# Reentrant. Taken last: nothing waits for another lock while it holds this one.
MODULE_LOCK = threading.RLock()
