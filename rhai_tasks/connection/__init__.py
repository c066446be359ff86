"""How is the server reached, and how is an outage waited out?"""
