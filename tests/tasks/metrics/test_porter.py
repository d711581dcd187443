"""The stemmer is NLTK's own; loading it leaves no other module of NLTK behind."""

import subprocess
import sys

SCRIPT = """
import sys
from tasks.metrics.porter import porter_stemmer
stemmer = porter_stemmer()
assert not [name for name in sys.modules if name.partition(".")[0] == "nltk"], "left behind"
assert "scipy.stats" not in sys.modules
import nltk
assert stemmer.__class__ is not nltk.stem.porter.PorterStemmer
words = ["caresses", "ponies", "flies", "dying", "relational", "hopping", "sky", "enjoyment"]
words += ["pneumonias", "effusions", "unremarkable", "calcified", "stabilities", "running"]
expected = nltk.stem.porter.PorterStemmer()
assert [stemmer.stem(word) for word in words] == [expected.stem(word) for word in words]
print("equal")
"""


def test_the_stemmer_is_nltks_and_leaves_nothing_behind() -> None:
    command = [sys.executable, "-c", SCRIPT]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("equal\n", "")
