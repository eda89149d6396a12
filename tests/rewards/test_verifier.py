from coterie.rewards.base import WorkedEpisode
from coterie.rewards.config import VerifierConfig
from coterie.rewards.verifier import Verifier
from coterie.types import Outcome, Task, Verdict


def test_answers_are_paid_for_what_is_known_of_them_and_nothing_where_nobody_knows():
    verdicts = {
        "right": Verdict("4", correct=True), "wrong": Verdict("5", correct=False),
        "unread": Verdict(None, correct=False), "late": Verdict("4", correct=False, timed_out=True),
        "unjudged": Verdict("4", correct=False, labels={}),
    }  # fmt: skip
    episode = WorkedEpisode(Task("t", "?"), Outcome(None, ()), {}, verdicts, Verdict(None, correct=False))
    given = Verifier(VerifierConfig(right=1, wrong=-0.5, unparsed=-1)).score(episode)
    assert given == {"right": 1, "wrong": -0.5, "unread": -1}
