"""How do programs submit and follow tasks over HTTP?"""
