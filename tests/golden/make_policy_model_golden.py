#!/usr/bin/env python3
"""Golden values of stage grpo through a whole model, to which tests/train/objectives/policy_golden_test.cpp compares
Colonnade. Rewrites tests/golden/policy_model_golden.json. It needs what make_policy_golden.py needs, and transformers
(the committed values: 5.24), no network.

The model is tests/golden/models/llama_tied in float64; each answer runs alone behind its prompt. Losses and metrics are
TRL's own code, gradients come from autograd.

    {temperature, max_completion_length, prompts [groups][tokens], answers [{prompt, tokens, advantage, old, ref,
     sampled}], cases [{settings..., value, metrics, gradients {name: numbers}, norms {name: number}}]}
"""

import json
import pathlib

import torch
import transformers

import make_golden
import make_policy_golden as trl_losses
from trl.trainer.utils import entropy_from_logits, selective_log_softmax

FOLDER = pathlib.Path(__file__).parent
TEMPERATURE = 0.9
LENGTHS = [5, 9, 1, 7, 7, 4]
CASES = [dict(loss_type="dapo", beta=0.04), dict(loss_type="dapo", beta=0.04, importance=True),
         dict(loss_type="dapo", delta=1.5, epsilon_low=0.1, epsilon_high=0.28), dict(loss_type="grpo"),
         dict(loss_type="dr_grpo", beta=0.3, use_bias_correction_kl=False), dict(loss_type="cispo", epsilon_high=1.1),
         dict(loss_type="sapo"), dict(loss_type="grpo", importance_sampling_level="sequence", beta=0.1),
         dict(loss_type="luspo", importance_sampling_level="sequence"), dict(loss_type="rloo")]
WHOLE = ["model.norm.weight", "model.layers.0.input_layernorm.weight", "model.layers.1.post_attention_layernorm.weight"]
NORMS = ["model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight", "model.layers.0.mlp.down_proj.weight"]


def answers_of(random, vocab):
    prompts = [torch.randint(vocab, (n,), generator=random) for n in (8, 3)]
    answers = [torch.randint(vocab, (n,), generator=random) for n in LENGTHS]
    answers[4][:5] = answers[3][:5]  # two that begin alike
    return prompts, [(i % 2, tokens) for i, tokens in enumerate(answers)]


def measure(model, prompts, answers):
    """Log-probabilities and entropies of the answers' tokens, padded."""
    shape = len(answers), max(LENGTHS)
    logps, entropies = torch.zeros(shape), torch.zeros(shape)
    for i, (prompt, tokens) in enumerate(answers):
        row = torch.cat([prompts[prompt], tokens])[None]
        logits = model(input_ids=row, use_cache=False).logits[0, len(prompts[prompt]) - 1:-1] / TEMPERATURE
        logps[i, :len(tokens)] = selective_log_softmax(logits, tokens)
        entropies[i, :len(tokens)] = entropy_from_logits(logits)
    return logps, entropies


def main():
    single = transformers.AutoModelForCausalLM.from_pretrained(FOLDER / "models" / "llama_tied", dtype="float32")
    with make_golden.computing_in(torch.float64):
        model = transformers.AutoModelForCausalLM.from_config(single.config, dtype=torch.float64,
                                                              attn_implementation="eager")
        model.load_state_dict(single.state_dict())
        random = torch.Generator().manual_seed(23)
        prompts, answers = answers_of(random, model.config.vocab_size)
        logps = measure(model, prompts, answers)[0].detach()
        near = lambda base, scale: (base + scale * torch.randn(base.shape, generator=random)).clamp(max=-1e-3).to(
            torch.bfloat16).to(torch.float64)  # which float holds
        mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()
        old = near(logps, 0.3)
        inputs = dict(mask=mask, old=old, ref=near(logps, 0.3), sampled=near(old, 0.1),
                      advantages=torch.tensor([0.75, -1.25, 0.5, 1.0, -0.5, -0.25]))
        named, cases = dict(model.named_parameters()), []
        for settings in CASES:
            model.zero_grad()
            row, loss, metrics = trl_losses.policy_loss(settings, inputs, *measure(model, prompts, answers))
            loss.backward()
            names = ["kl", "entropy", "clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean",
                     "clip_ratio/low_min", "clip_ratio/high_max", "cispo_clip_ratio"]
            cases.append(row | dict(value=loss.item(), metrics={key: metrics[key] for key in names if key in metrics},
                                    gradients={name: named[name].grad.tolist() for name in WHOLE},
                                    norms={name: named[name].grad.norm().item() for name in NORMS}))
    lists = [dict(prompt=prompt, tokens=tokens.tolist(), advantage=inputs["advantages"][i].item(),
                  **{key: inputs[key][i, :len(tokens)].tolist() for key in ["old", "ref", "sampled"]})
             for i, (prompt, tokens) in enumerate(answers)]
    golden = dict(temperature=TEMPERATURE, max_completion_length=trl_losses.MAX_COMPLETION_LENGTH,
                  prompts=[prompt.tolist() for prompt in prompts], answers=lists, cases=cases)
    (FOLDER / "policy_model_golden.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
