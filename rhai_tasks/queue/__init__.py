"""How does a task get from the list to a thread, and its outcome back?"""
