import pytest


@pytest.fixture(autouse=True, scope="session")
def generators() -> None:
    """reasoning-gym is imported (two seconds) before any test looks at the clock."""
    from coterie.envs.benchmarks import reasoning_gym

    reasoning_gym.library()
