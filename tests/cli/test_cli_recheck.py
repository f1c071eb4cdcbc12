from command_line import table_of


def test_recheck_measures_the_published_plans_again(tuned, cli):
    code, out, _ = cli("recheck", table_of(tuned[0]), "--rounds", 4, "--device", "cpu")
    assert code in {0, 1}
    assert "all good" in out or "could not be told" in out if code == 0 else "not as good" in out
