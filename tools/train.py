#!/usr/bin/env python
"""Train with MMDetection or MMSegmentation, whichever the config is for.

    tools/train.py CONFIG [--work-dir DIR] [--resume] [--cfg-options KEY=VALUE ...] [...]
    torchrun --nproc_per_node 2 tools/train.py CONFIG [...]

The arguments are those of the framework's own tools/train.py (`tools/train.py CONFIG --help` lists them), which this
runs. It works on CPUs, with several processes too. `--cfg-options data_root=FOLDER` says where the data set is.
"""

import sys

if __name__ == "__main__":
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(__doc__)
        sys.exit()
    from regnet_backbones.adapters.openmmlab.tools import main

    sys.exit(main("train", sys.argv[1:]))
