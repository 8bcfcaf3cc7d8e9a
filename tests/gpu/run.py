"""Everything that needs a GPU, in one run of at most 8 minutes, without Ray and without a network.

python tests/gpu/run.py [--only correctness,speed] [--minutes 8] [--json FILE]

One table at the end shows what was checked and measured, on which device and when. The exit code is 1 if a check of
correctness failed, 2 if an option is wrong, else 0. Without a GPU, the same parts run at small sizes on the CPU: their
checks hold there too, and their times say nothing about a GPU.

It needs torch, numpy, opencv, pyarrow, pydantic, pyyaml, filelock, safetensors and kornia. All images are rendered or
drawn by it. `tests/gpu/parts.py` lists the parts; CUDA_VISIBLE_DEVICES= hides the GPU.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # the processes that render import this file too, and need none of this
    root = Path(__file__).parents[2]
    sys.path[:1] = [str(root), str(root / "tests" / "benchmarks")]
    from tests.gpu.driver import main

    sys.exit(main())
