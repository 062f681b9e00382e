"""easyrec_lite: recommender models from a config file, on today's TensorFlow."""
