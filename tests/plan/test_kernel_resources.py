from mla_tune.plan.kernel_resources import KernelResources


def test_of_two_kernels_the_most_of_each_counts():
    one, other = KernelResources(168, 0, 40_960), KernelResources(128, 12, 102_400)
    assert one.most(other) == other.most(one) == KernelResources(168, 12, 102_400)
    assert one.most(None) == one


def test_it_is_told_in_a_few_words():
    assert str(KernelResources(168, 12, 40_960)) == "168 registers, spills 12"
