def write(kept, target): pass
