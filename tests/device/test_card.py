from mla_tune.device.card import card_hash


def test_a_card_has_one_name_that_does_not_hold_its_identity():
    identity = "GPU-12345678-1234-1234-1234-1234567890ab"
    assert card_hash(identity) == card_hash(identity)
    assert card_hash(identity) != card_hash(identity.replace("b", "c"))
    assert len(card_hash(identity)) == 8
    assert card_hash(identity) not in identity
