"""What a trained model does on rows: numbers for the notebook face and for `python -m easyrec_lite.insight`."""
