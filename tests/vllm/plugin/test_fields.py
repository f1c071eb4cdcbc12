from mla_tune.vllm.plugin.fields import exchange


class Owner:
    of_class = "class"

    def __init__(self) -> None:
        self.own = "own"


def test_fields_are_set_and_put_back() -> None:
    owner = Owner()
    before = exchange(owner, (("own", 1), ("of_class", 2), ("new", 3)))
    assert (owner.own, owner.of_class, vars(owner)["new"]) == (1, 2, 3)
    exchange(owner, before)
    assert vars(owner) == {"own": "own"}
    assert owner.of_class == "class"


def test_a_value_of_none_is_put_back_as_such() -> None:
    owner = Owner()
    vars(owner)["own"] = None
    exchange(owner, exchange(owner, (("own", 1),)))
    assert vars(owner) == {"own": None}


def test_without_fields_nothing_changes() -> None:
    owner = Owner()
    assert exchange(owner, ()) == ()
    assert vars(owner) == {"own": "own"}
