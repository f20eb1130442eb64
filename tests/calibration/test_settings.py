"""What is read of an engine from the words that submitters use."""

from loadstone.calibration.settings import Settings, borrowed, read_settings


def test_a_submission_that_states_all() -> None:
    """A submission that states all."""
    text = (
        "9 replicas, TP8 EP8; batch 1536; max_num_tokens 6656; KV fraction 0.95;"
        " attention DP; no chunked context; CUDA graphs"
    )
    assert read_settings(text) == Settings(
        group=8, batch=1536, budget=6656, fraction=0.95, data_parallel=True, graphs=True
    )


def test_stages_and_no_graphs() -> None:
    """Stages and no graphs."""
    stated = read_settings("2 replicas, TP2 PP2; batch 128; no CUDA graphs")
    assert (stated.group, stated.pipeline, stated.graphs) == (2, 2, False)


def test_a_group_that_attends_in_parallel() -> None:
    """A group that attends in parallel."""
    assert read_settings("TensorRT-LLM PyTorch backend, DEP4").data_parallel
    two = read_settings("vLLM, NVFP4, EP2 on 2 GPUs, mixed prefill and decode")
    assert (two.group, two.data_parallel) == (2, True)


def test_workers_apart_do_not_lend_their_settings() -> None:
    """Workers apart do not lend their settings."""
    stated = read_settings("disaggregated, TP1: prefill workers batch 4096; MTP")
    assert stated.disaggregated
    assert stated.speculative
    assert not stated.layout_known


def test_nothing_stated_is_nothing_known() -> None:
    """Nothing stated is nothing known."""
    assert read_settings("software: TensorRT 10.14, CUDA 13.1") == Settings()


def test_what_is_stated_is_not_borrowed() -> None:
    """What is stated is not borrowed."""
    own = Settings(batch=64, graphs=False)
    lender = Settings(group=2, batch=128, graphs=True, data_parallel=True, requests=9)
    assert borrowed(own, lender) == Settings(
        group=2, batch=64, graphs=False, data_parallel=True
    )
