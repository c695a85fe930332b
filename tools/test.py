#!/usr/bin/env python
"""Evaluate with MMDetection or MMSegmentation, whichever the config is for.

    tools/test.py CONFIG CHECKPOINT [--out FILE] [--show-dir DIR] [--tta] [--cfg-options KEY=VALUE ...] [...]
    torchrun --nproc_per_node 2 tools/test.py CONFIG CHECKPOINT [...]

The arguments are those of the framework's own tools/test.py (`tools/test.py CONFIG --help` lists them), which this
runs. It works on CPUs, with several processes too. `--cfg-options data_root=FOLDER` says where the data set is.
"""

import sys

if __name__ == "__main__":
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(__doc__)
        sys.exit()
    from regnet_backbones.adapters.openmmlab.tools import main

    sys.exit(main("test", sys.argv[1:]))
