"""How do a bridge and its workers live as one tree of processes?"""
