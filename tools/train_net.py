#!/usr/bin/env python
"""Train or evaluate with Detectron2, with the arguments of Detectron2's own tools/train_net.py.

    tools/train_net.py --config-file configs/detectron2/mask_rcnn_regnety_4gf.yaml --num-gpus 8
    tools/train_net.py --config-file ... --eval-only MODEL.WEIGHTS output/model_final.pth
    tools/train_net.py --config-file ... --num-gpus 2 MODEL.DEVICE cpu         two processes on the CPU
    torchrun --nproc-per-node 8 tools/train_net.py --config-file ...
    tools/train_net.py --config-file ... --num-gpus 8 --num-machines 2 --machine-rank 0 --dist-url tcp://host0:29500

DETECTRON2_DATASETS names the folder that holds coco/, ADEChallengeData2016/ and regnet_shapes/.
"""

import sys

from regnet_backbones.adapters.detectron2.launch import run

if __name__ == "__main__":
    sys.exit(run())
