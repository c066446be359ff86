"""What runs inside each contender's own environment: its application, and the client that drives it.

`python -m apps NAME URL`, from the folder bench/, is the client; workers are the contender's own command, pointed at
the module of that name. So these modules import nothing of ours but the engine, and nothing of the rest of bench/.
"""
