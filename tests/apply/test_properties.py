"""The properties as they are run for people, on their machines."""

from properties import run as properties

from apply import trees


def test_what_fails_says_why_in_a_few_words() -> None:
    status, output = properties.run(trees.source().path, "--tb=no", "-rN", test="test_boot.py::test_boot")
    assert status == 1
    failed, why = [line for line in output.splitlines() if line][-4:-2]
    assert failed.startswith("FAILED A signal during post_fork, ")
    assert why.startswith("       SIGUSR1 during post_fork was missed: ['process ")
