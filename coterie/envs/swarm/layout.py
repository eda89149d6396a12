"""Where the numbers of a drone and of an environment stand in the world's arrays.

An environment is four rows: `drones` float32 [ROWS, N], `flags` int32 [N], `counters` int32 [COUNTERS] and `settings`
float32 [SETTINGS], besides its obstacles. Copying the rows copies the episode.
"""

from __future__ import annotations

# Rows of a drone's state. Attitude is row-major and turns body into world axes; motor is the square root of thrust.
POSITION, VELOCITY, ATTITUDE, OMEGA, MOTOR, JITTER = 0, 3, 6, 15, 18, 22
GOAL, GOAL_STEP, GOAL_BEND = 26, 29, 32
"""A goal moves by GOAL_STEP at every tick, which changes by GOAL_BEND: a parabola, also a point or a line."""
BEFORE = 35
"""The position one tick ago: who was in contact then is who was near then."""
RING = 38
"""Distances to the goal at the last five ticks."""
NEAR_1S, NEAR_3S, NEAR_5S, ON_FLOOR_TICKS = 43, 44, 45, 46
"""Sums of distances over the last seconds of the episode; ticks spent on the floor."""
ROWS = 47

# Further rows of the scratch in which an environment is worked.
TARGET, PUSH, ACTION, NORMAL = 47, 51, 55, 59
WALL, CEILING, REWARD, DISTANCE, KEY, SQUARED, AXIS = 75, 76, 77, 78, 79, 80, 81
OLD_VELOCITY = 82
WORK_ROWS = 85
LANES = 136
"""Floats from one scratch row to the next: a constant, so that rows are known not to overlap and loops turn into vector
code; no power of two, so that rows do not fall into the same sets of the cache."""
BLOCK = 128
"""Drones worked at a time."""
PADDING = LANES - BLOCK
"""By so much rows of other scratch are longer than they need be, for the same reason."""

# Bits of a drone's flags.
LANDED = 1 << 0
"""On the floor now."""
HIT_FLOOR, HIT_WALL, HIT_CEILING = 1 << 1, 1 << 2, 1 << 3
"""In this tick."""
TOUCHES_DRONE, TOUCHES_OBSTACLE = 1 << 4, 1 << 5
"""Now."""
HIT_DRONE, HIT_OBSTACLE = 1 << 6, 1 << 7
"""In this tick, after a tick without."""
REACHED, EVER_DRONE, EVER_OBSTACLE = 1 << 8, 1 << 9, 1 << 10
"""In this episode; contacts after the grace period."""
LOST = 1 << 11
"""Crashed and taken out of the world, if the config says so."""

WAS_TOUCHING_DRONE, WAS_TOUCHING_OBSTACLE = 1 << 12, 1 << 13
"""One tick ago."""

# What others do to a drone in a tick.
KICK, TWIST, WASH, FASTEST, CROWD, TOUCHED = 0, 3, 6, 9, 10, 11
"""Added velocity by contacts and angular velocity, added velocity by downwash, the greatest speed of those in contact,
proximity from 0 to 1 each; above zero if any velocity changes."""
DEEDS = 12

# Counters of an environment.
TICK, EPISODE, SCENARIO, NEXT_LEG, FORMATION, NUM_OBSTACLES, ENDS, MOVING, EVENT, REPLAYED = range(10)
PAIR_CONTACTS, OBSTACLE_CONTACTS, FLOOR_HITS, WALL_HITS, CEILING_HITS, LATE_CONTACTS = range(10, 16)
COUNTERS = 16

# Settings of an environment.
CENTRE, OTHER_CENTRE, SPACING, SPACING_RATE, RADIUS, PENALTY, SPEED = 0, 3, 6, 7, 8, 9, 10
SETTINGS = 11

# Columns of the table of scenarios.
MOVE, IN_FORMATION, SPACING_LOW, SPACING_HIGH, PERIOD_LOW, PERIOD_HIGH, AMONG_OBSTACLES, REACH, GOALS = range(9)
COLUMNS = 9

# What a draw is for: the last word of its counter.
FOR_ROTORS, FOR_SENSORS, FOR_PAIRS, FOR_DECAY, FOR_OBSTACLES, FOR_WALLS, FOR_FLOOR, FOR_DOWNWASH = range(8)
FOR_CELLS, FOR_START, FOR_SCENARIO, FOR_GOALS, FOR_LEGS, FOR_REPLAY = range(8, 14)
PURPOSES = 1 << 8
"""Purposes are this far apart, so that one may hold several draws."""
