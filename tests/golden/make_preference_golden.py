#!/usr/bin/env python3
"""Golden values of preference and reward losses, to which tests/layers/preference_loss_test.cpp and
tests/layers/ranking_loss_test.cpp compare Colonnade. Rewrites tests/golden/preference_golden.json. It needs torch (the
committed values: torch 2.15), no network.

The losses are written as in TRL's trainers: on tensors of per-token log-probabilities with a loss mask, in float64.
Slopes come from autograd, with respect to each answer's log-probability. No code is shared with
layers/preference_formulas.h.

    pairs     [{loss_type, beta, label_smoothing, simpo_gamma, chosen, rejected, ref_chosen, ref_rejected, chosen_length,
                rejected_length, value, d_chosen, d_rejected}]
    rankings  [{kind, scores (best first), margin, center, value, slopes}]
"""

import itertools
import json
import pathlib

import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)

REFERENCE_FREE = {"simpo", "orpo", "sft"}
SMOOTHED = {"sigmoid": [0.0, 0.1, 0.45], "robust": [0.0, 0.1, 0.45], "exo_pair": [1e-3, 0.2]}
LOSSES = ["sigmoid", "robust", "hinge", "ipo", "sigmoid_norm", "exo_pair", "nca_pair", "sppo_hard", "apo_zero", "apo_down",
          "simpo", "orpo", "sft"]


def preference_loss(loss_type, beta, label_smoothing, gamma, policy, reference, mask):
    """policy, reference: [2, tokens] log-probabilities of the tokens of the chosen and the rejected answer."""
    chosen_logps, rejected_logps = (policy * mask).sum(-1)
    ref_chosen_logps, ref_rejected_logps = (reference * mask).sum(-1)
    chosen_length, rejected_length = mask.sum(-1)
    chosen_logratios = chosen_logps - ref_chosen_logps
    rejected_logratios = rejected_logps - ref_rejected_logps
    delta = chosen_logratios - rejected_logratios
    if loss_type == "sigmoid":
        return -F.logsigmoid(beta * delta) * (1 - label_smoothing) - F.logsigmoid(-beta * delta) * label_smoothing
    if loss_type == "robust":
        clean = -F.logsigmoid(beta * delta) * (1 - label_smoothing)
        flipped = F.logsigmoid(-beta * delta) * label_smoothing
        return (clean + flipped) / (1 - 2 * label_smoothing)
    if loss_type == "hinge":
        return torch.relu(1 - beta * delta)
    if loss_type == "ipo":
        return (chosen_logratios / chosen_length - rejected_logratios / rejected_length - 1 / (2 * beta)) ** 2
    if loss_type == "sigmoid_norm":
        return -F.logsigmoid(beta * (chosen_logratios / chosen_length - rejected_logratios / rejected_length))
    if loss_type == "exo_pair":
        model = torch.stack([torch.sigmoid(beta * delta), torch.sigmoid(-beta * delta)])
        log_model = torch.stack([F.logsigmoid(beta * delta), F.logsigmoid(-beta * delta)])
        label = torch.tensor([1 - label_smoothing, label_smoothing])
        return (model * (log_model - label.log())).sum()
    if loss_type == "nca_pair":
        chosen_rewards, rejected_rewards = chosen_logratios * beta, rejected_logratios * beta
        return -F.logsigmoid(chosen_rewards) - 0.5 * F.logsigmoid(-chosen_rewards) - 0.5 * F.logsigmoid(-rejected_rewards)
    if loss_type == "sppo_hard":
        return (chosen_logratios - 0.5 / beta) ** 2 + (rejected_logratios + 0.5 / beta) ** 2
    if loss_type == "apo_zero":
        return 1 - torch.sigmoid(beta * chosen_logratios) + torch.sigmoid(beta * rejected_logratios)
    if loss_type == "apo_down":
        return torch.sigmoid(beta * chosen_logratios) + 1 - torch.sigmoid(beta * (chosen_logratios - rejected_logratios))
    chosen_mean, rejected_mean = chosen_logps / chosen_length, rejected_logps / rejected_length
    if loss_type == "simpo":
        return -F.logsigmoid(beta * (chosen_mean - rejected_mean) - gamma)
    if loss_type == "orpo":
        log_odds = (chosen_mean - rejected_mean) - (
            torch.log1p(-torch.exp(chosen_mean)) - torch.log1p(-torch.exp(rejected_mean)))
        return -chosen_mean - beta * F.logsigmoid(log_odds)
    assert loss_type == "sft"
    return -(policy[0] * mask[0]).sum() / mask[0].sum()


def ranking_loss(kind, scores, margin, center):
    pairs = [torch.stack([scores[i], scores[j]]) for i, j in itertools.combinations(range(len(scores)), 2)]
    chosen, rejected = torch.stack(pairs).unbind(-1)
    if kind == "pairwise":
        loss = -F.logsigmoid(chosen - rejected - margin).mean()
    else:  # the probability of drawing the answers in this order, without replacement
        loss = -sum(F.log_softmax(scores[i:], 0)[0] for i in range(len(scores) - 1))
    return loss + center * torch.mean((chosen + rejected) ** 2)


def pair_cases():
    random = torch.Generator().manual_seed(11)
    for loss_type in LOSSES:
        for beta in [0.1, 0.5, 2.0]:
            for smoothing in SMOOTHED.get(loss_type, [0.0]):
                for scale in [0.0, 0.3, 3.0]:  # distance of the policy from the reference
                    lengths = torch.randint(1, 9, (2,), generator=random)
                    mask = (torch.arange(8) < lengths[:, None]).double()
                    reference = -torch.rand((2, 8), generator=random) * 3 - 0.05
                    drift = torch.randn((2, 8), generator=random) * scale
                    policy = torch.clamp(reference + drift, max=-0.02).requires_grad_()
                    gamma = 0.5 if beta != 0.5 else 1.25
                    loss = preference_loss(loss_type, beta, smoothing, gamma, policy, reference, mask)
                    loss.backward()
                    # The slope with respect to a token's log-probability equals that of its answer.
                    used = (policy.grad * mask).sum(-1) / lengths
                    chosen, rejected = (policy * mask).sum(-1).tolist()
                    ref_chosen, ref_rejected = (reference * mask).sum(-1).tolist()
                    if loss_type in REFERENCE_FREE:
                        ref_chosen = ref_rejected = 0.0
                    yield dict(loss_type=loss_type, beta=beta, label_smoothing=smoothing, simpo_gamma=gamma, chosen=chosen,
                               rejected=rejected, ref_chosen=ref_chosen, ref_rejected=ref_rejected,
                               chosen_length=int(lengths[0]), rejected_length=int(lengths[1]), value=loss.item(),
                               d_chosen=used[0].item(), d_rejected=used[1].item())


def ranking_cases():
    random = torch.Generator().manual_seed(12)
    for kind in ["pairwise", "plackett_luce"]:
        for answers in [2, 3, 4, 7]:
            for margin in [0.0, 0.75] if kind == "pairwise" else [0.0]:
                for center in [0.0, 0.01, 0.3]:
                    scores = (torch.randn(answers, generator=random) * 2).requires_grad_()
                    loss = ranking_loss(kind, scores, margin, center)
                    loss.backward()
                    yield dict(kind=kind, scores=scores.tolist(), margin=margin, center=center, value=loss.item(),
                               slopes=scores.grad.tolist())


golden = {"pairs": list(pair_cases()), "rankings": list(ranking_cases())}
path = pathlib.Path(__file__).parent / "preference_golden.json"
rows = {name: ",\n".join("  " + json.dumps(case) for case in cases) for name, cases in golden.items()}
path.write_text("{\n" + ",\n".join(f' "{name}": [\n{text}\n ]' for name, text in rows.items()) + "\n}\n")
print(f"{path}: {len(golden['pairs'])} pairs, {len(golden['rankings'])} rankings")
