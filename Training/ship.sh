#!/bin/sh
# sh Training/ship.sh RUN MODEL DATA: makes the shipped model folder MODEL of a finished run, evaluates it on the val
# cases of its fold, and writes that figure into its card. It gets ONNX's graph too, which ONNX Runtime and OpenVINO
# compute without PyTorch. Run from the repository's root.
set -eu
run=$1 model=$2 data=$3
splits=${SPLITS:-Training/splits/$data.json}
fold=${FOLD:-0}
folder=TeachFormerCore/models/$model
results=docs/results/$model
teachformer export --run "$run" --output "$folder" --described "Training/cards/$model.json" --runtime onnx
teachformer evaluate --model "$folder" --data "$data" --splits "$splits" --fold "$fold" --output "$results"
teachformer export --run "$run" --output "$folder" --described "Training/cards/$model.json" --evaluation "$results" \
    --runtime onnx
cp "$folder/model.json" "$results/model.json"
python Training/results.py
