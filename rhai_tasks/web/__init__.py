"""What does the page of `rhai-tasks web` show and do?"""
