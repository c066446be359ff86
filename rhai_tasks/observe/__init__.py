"""What is counted, reported and traced?"""
