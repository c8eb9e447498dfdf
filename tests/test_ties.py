"""Ties at the boundary: the lower index in the current order stays, eager and in ONNX Runtime alike."""

import numpy as np
import torch
from helpers import tiny_vit

from gtp_exporters.agreement import make_session
from gtp_exporters.graph.trace import Traced, to_onnx
from gtp_models.frame.patch import trace_tokens
from gtp_models.frame.tokens import rank
from gtp_models.methods.apply import apply
from gtp_models.methods.gtp.config import GTPConfig

SPARSE = GTPConfig(num_prop=3, num_neighbours=4, sparsity=0.05, selection="DiagAttnMax")


def test_strong_sparsity_ties_at_the_boundary_and_both_choose_alike() -> None:
    model = apply(tiny_vit(), SPARSE)
    session = make_session(to_onnx(Traced(model, True), 4, 20)[0])
    ties = 0
    for seed in range(5):
        images = torch.randn(4, 3, *model.patch_embed.img_size, generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode(), trace_tokens(model) as trace:
            expected = model(images)
        logits, left = session.run(None, {"images": images.numpy()})
        np.testing.assert_array_equal(left, torch.cat([step.propagated for step in trace], 1).numpy())
        np.testing.assert_allclose(logits, expected.numpy(), rtol=0, atol=1e-4)
        ties += sum(int((step.gap == 0).sum()) for step in trace)
    assert ties > 10


def test_the_lower_index_stays() -> None:
    scores = torch.tensor([0.0, 1.0, 0.0, 2.0, 0.0, 1.0, 0.0])
    assert rank(scores, 0)[1].tolist() == [3, 1, 5, 0, 2, 4, 6]
    assert rank(scores, 1)[1].tolist() == [0, 3, 1, 5, 2, 4, 6]
