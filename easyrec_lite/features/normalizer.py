PLACEHOLDER = 1
class Normalizer:
    def __init__(self, text): ...
    def __call__(self, x): return x
def normalizer_problems(config):
    return ()
