"""How does a person see the queues and mend them?"""
