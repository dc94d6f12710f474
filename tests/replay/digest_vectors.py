"""stub"""
def cases(path, scratch):
    return iter(())
