"""Policies of swarms: small networks that many agents share.

from coterie.agents.swarm.architecture import Architecture
from coterie.agents.swarm.networks import Actor, Critic

actor = Actor(Architecture.preset("attention", "small"), world.spec)
"""
