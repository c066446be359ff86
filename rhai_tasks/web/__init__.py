"""The web page, `rhai-tasks web`: what is where, what runs, and what to do about it."""
