import importlib.util
from typing import get_args

import pytest

from mla_tune.shapes.sections import KV_CACHE_DTYPES, OTHER_KV_CACHE_DTYPES


@pytest.mark.vllm
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM")
def test_every_cache_dtype_of_vllm_is_known_by_name():
    from vllm.config.cache import CacheDType

    assert set(get_args(CacheDType)) <= {*KV_CACHE_DTYPES, *OTHER_KV_CACHE_DTYPES}
