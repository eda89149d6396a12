"""Credit: who and what earned a reward, from the team to the agent to the token."""
