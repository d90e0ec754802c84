#!/usr/bin/env python3
"""Golden values of the losses of learning from given numbers, to which tests/layers/policy_formulas_test.cpp,
unpaired_formulas_test.cpp, distillation_formulas_test.cpp, policy_loss_test.cpp and tests/data/rows/advantages_test.cpp
compare Colonnade. Rewrites tests/golden/policy_golden.json. It needs trl 1.16.0 and torch (the committed values:
2.15), no network.

All values are made by TRL's own code in float64, on random tensors. Methods of trainers that need only tensors are
called with a stub for self; of methods that need a model, the lines between two texts are run as they are. Slopes come
from autograd.

    policy        {logps, old, ref, sampled [sequences][terms], advantages [sequences], max_completion_length}
    policy_cases  [{settings..., value, gradient [sequences][terms], metrics}]
    token         [{loss, logps, values, gradient}]
    importance    [{mode, clip_min, clip_max, log_ratio [sequences][terms], factors}]
    unpaired      [{settings..., log_ratios, labels, mismatched, kl, value, gradient}]
    distillation  [{beta, teacher, ids, logits, value, gradient}]
    advantages    [{settings..., rewards [answers][functions], penalties, groups, values, reward, reward_std}]
    head          {hidden [targets][width], weight [vocabulary][width], tokens [targets], sequences [sequences][terms]:
                  targets, some of several sequences; old, ref, sampled [sequences][terms], advantages, labels,
                  ref_logps [sequences], mismatched}
    head_cases    [{settings..., value, dhidden, dweight, metrics}]: losses of whole batches through a head
"""

import collections
import inspect
import json
import pathlib
import textwrap
import types

import torch

torch.set_default_dtype(torch.float64)

import trl
from trl.experimental.server_distillation import server_distillation_trainer as distillation
from trl.trainer import grpo_trainer, kto_trainer, rloo_trainer, sft_trainer
from trl.trainer.utils import entropy_from_logits, selective_log_softmax

assert trl.__version__ == "1.16.0", trl.__version__
Namespace = types.SimpleNamespace

ACCELERATOR = Namespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction=None: x, sync_gradients=True,
                        gather_for_metrics=lambda x: x, device="cpu", unwrap_model=lambda m: m)
MAX_COMPLETION_LENGTH = 50
LENGTHS = [1, 3, 4, 6, 7, 5]


def run_lines(function, first, stop, scope):
    """Runs the lines of a function from the first that begins with `first` to the one before `stop`."""
    lines = inspect.getsource(function).splitlines()
    begin = next(i for i, line in enumerate(lines) if line.strip().startswith(first))
    end = next(i for i in range(begin, len(lines)) if lines[i].strip().startswith(stop))
    scope = {**inspect.getmodule(function).__dict__, **scope}
    exec(textwrap.dedent("\n".join(lines[begin:end])), scope)
    return scope


def ragged(tensor):
    return [row[:n].tolist() for row, n in zip(tensor, LENGTHS)]


def policy_stub(logps, entropies, **settings):
    args = dict(use_bias_correction_kl=True, delta=None, sapo_temperature_pos=1.0, sapo_temperature_neg=1.05,
                steps_per_generation=1)
    own = dict(aux_loss_enabled=False, top_entropy_quantile=1.0, off_policy_mask_threshold=None, beta=0.0,
               importance_sampling_level="token", epsilon_low=0.2, epsilon_high=0.2, use_vllm=False,
               vllm_importance_sampling_correction=True, model=Namespace(training=True), accelerator=ACCELERATOR,
               current_gradient_accumulation_steps=1, max_completion_length=MAX_COMPLETION_LENGTH,
               _entropy_bonus_enabled=False, _metrics={"train": collections.defaultdict(list)})
    for key, value in settings.items():
        (args if key in args else own)[key] = value
    own["_get_per_token_logps_and_entropies"] = lambda *a, **k: (logps, entropies, None)
    return Namespace(args=Namespace(**args), **own)


def policy_cases(inputs):
    variants = [dict(loss_type=loss, beta=beta) for loss in ["dapo", "grpo", "dr_grpo", "sapo"] for beta in [0.0, 0.04]]
    variants += [dict(loss_type="cispo", epsilon_high=1.1, beta=beta) for beta in [0.0, 0.3]]
    variants += [dict(loss_type="dapo", beta=0.5, use_bias_correction_kl=False),
                 dict(loss_type="dapo", delta=1.5),
                 dict(loss_type="dapo", epsilon_low=0.05, epsilon_high=0.3),
                 dict(loss_type="dapo", beta=0.04, importance=True),
                 dict(loss_type="sapo", sapo_temperature_pos=0.7, sapo_temperature_neg=2.0),
                 dict(loss_type="luspo", beta=0.04)]
    for loss in ["grpo", "luspo", "dapo", "dr_grpo", "sapo"]:
        variants += [dict(loss_type=loss, importance_sampling_level="sequence"),
                     dict(loss_type=loss, importance_sampling_level="sequence", beta=0.3),
                     dict(loss_type=loss, importance_sampling_level="sequence", beta=0.3, use_bias_correction_kl=False)]
    variants += [dict(loss_type="grpo", importance_sampling_level="sequence", delta=1.02, epsilon_low=0.01,
                      epsilon_high=0.015, importance=True)]
    variants += [dict(loss_type="rloo"), dict(loss_type="rloo", epsilon_low=0.5, epsilon_high=0.1)]
    for settings in variants:
        logps = inputs["logps"].clone().requires_grad_()
        row, loss, metrics = policy_loss(settings, inputs, logps, torch.zeros_like(logps))
        gradient, = torch.autograd.grad(loss, logps)
        assert gradient[inputs["mask"] == 0].abs().max() == 0
        names = ["kl", "clip_ratio/low_mean", "clip_ratio/high_mean", "cispo_clip_ratio"]
        yield row | dict(value=loss.item(), gradient=ragged(gradient),
                         metrics={key: metrics[key] for key in names if key in metrics})


def policy_loss(settings, inputs, logps, entropies):
    """The settings in full, TRL's loss and its metrics."""
    mask, old, ref, sampled = inputs["mask"], inputs["old"], inputs["ref"], inputs["sampled"]
    with_importance = settings.get("importance", False)
    stub = policy_stub(logps, entropies, use_vllm=with_importance,
                       **{k: v for k, v in settings.items() if k != "importance"})
    batch = dict(prompt_ids=torch.zeros(len(mask), 1, dtype=torch.long), completion_mask=mask,
                 prompt_mask=torch.ones(len(mask), 1, dtype=torch.long),
                 completion_ids=torch.zeros_like(mask), advantages=inputs["advantages"], old_per_token_logps=old,
                 ref_per_token_logps=ref, num_items_in_batch=mask.sum().double(), old_logps=(old * mask).sum(1))
    if with_importance:
        mode = "token_truncate" if settings["loss_type"] == "dapo" else "sequence_mask"
        batch["importance_sampling_ratio"] = importance_factors((old - sampled) * mask, mode, None, 1.2)
    rloo = settings["loss_type"] == "rloo"
    trainer = rloo_trainer.RLOOTrainer if rloo else grpo_trainer.GRPOTrainer
    loss = trainer._compute_loss(stub, None, batch)
    row = dict(level="sequence_sum" if rloo else stub.importance_sampling_level, loss_type=settings["loss_type"],
               beta=stub.beta, epsilon_low=stub.epsilon_low, epsilon_high=stub.epsilon_high,
               **{key: value for key, value in vars(stub.args).items() if key != "steps_per_generation"})
    if with_importance:
        row |= dict(importance=mode, importance_max=1.2)
    return row, loss, {key: values[-1] for key, values in stub._metrics["train"].items()}


def policy():
    random = torch.Generator().manual_seed(17)
    shape = len(LENGTHS), max(LENGTHS)
    normal = lambda scale: torch.randn(shape, generator=random) * scale
    mask = (torch.arange(shape[1]) < torch.tensor(LENGTHS)[:, None]).long()
    logps = -torch.rand(shape, generator=random) * 4 - 0.02
    inputs = dict(mask=mask, logps=logps, old=logps + normal(0.3), ref=logps + normal(0.3))
    inputs["sampled"] = inputs["old"] + normal(0.1)
    inputs["advantages"] = torch.randn(shape[0], generator=random)
    inputs["old"][1] = logps[1]  # a ratio of 1
    inputs["advantages"][2] = 0
    return dict(max_completion_length=MAX_COMPLETION_LENGTH, advantages=inputs["advantages"].tolist(),
                **{key: ragged(inputs[key]) for key in ["logps", "old", "ref", "sampled"]},
                cases=list(policy_cases(inputs)))


def token_losses():
    random = torch.Generator().manual_seed(18)
    for loss_type in ["nll", "dft"]:
        logps = (-torch.rand(8, generator=random) * 5).requires_grad_()
        loss, values = sft_loss(loss_type, logps, torch.ones(8), 1)
        gradient, = torch.autograd.grad(loss, logps)
        yield dict(loss=loss_type, logps=logps.tolist(), values=values.tolist(), gradient=gradient.tolist())


def sft_loss(loss_type, logps, mask, items):
    """TRL's loss, and that of each token."""
    outputs = Namespace(log_probs=logps, label_mask=mask, aux_loss=None)
    stub = Namespace(args=Namespace(loss_type=loss_type), aux_loss_enabled=False)
    scope = run_lines(sft_trainer.SFTTrainer.compute_loss, "per_token_loss = -outputs.log_probs",
                      "if self.aux_loss_enabled", dict(self=stub, outputs=outputs, num_items_in_batch=items))
    return scope["loss"], scope["per_token_loss"]


def importance_factors(log_ratio, mode, low, high):
    stub = Namespace(vllm_importance_sampling_mode=mode, vllm_importance_sampling_clip_min=low,
                     vllm_importance_sampling_clip_max=high)
    scope = run_lines(grpo_trainer.GRPOTrainer._generate_and_score_completions,
                      "sequence_level_is = ", "# Compute the per-token log probabilities for the reference model",
                      dict(self=stub, per_token_logps_diff=log_ratio))
    return scope["vllm_importance_sampling_ratio"]


def importance_cases():
    random = torch.Generator().manual_seed(19)
    for mode in ["sequence_mask", "sequence_truncate", "token_mask", "token_truncate"]:
        for low, high in [(None, 3.0), (0.8, 1.25), (0.5, None)]:
            log_ratio = torch.randn((5, 4), generator=random) * 0.4
            factors = importance_factors(log_ratio, mode, low, high)
            yield dict(mode=mode, clip_min=low, clip_max=high, log_ratio=log_ratio.tolist(), factors=factors.tolist())


def unpaired_cases():
    random = torch.Generator().manual_seed(20)
    for loss_type in ["kto", "apo_zero_unpaired"]:
        for beta, weights, drift in [(0.1, (1.0, 1.0), 0.4), (0.5, (1.3, 0.7), 0.4), (0.1, (2.0, 1.0), -0.6)]:
            answers = 6
            log_ratios = (torch.randn(answers, generator=random) * 3).requires_grad_()
            mismatched = torch.randn(answers, generator=random) + drift
            labels = torch.tensor([1, 0, 1, 1, 0, 0]).bool()
            settings = dict(loss=loss_type, beta=beta, desirable_weight=weights[0], undesirable_weight=weights[1])
            loss, metrics = unpaired_loss(settings, log_ratios[:, None], torch.zeros(answers), labels, mismatched)
            gradient, = torch.autograd.grad(loss, log_ratios)
            yield settings | dict(log_ratios=log_ratios.tolist(), labels=labels.int().tolist(),
                                  mismatched=mismatched.tolist(), kl=metrics["kl"], value=loss.item(),
                                  gradient=gradient.tolist())


def unpaired_loss(settings, logps, ref_logps, labels, mismatched):
    """TRL's loss and its metrics; logps [answers, terms]."""
    answers = len(logps)
    zeros, ones = torch.zeros_like(logps), torch.ones(answers, logps.shape[1] + 1, dtype=torch.long)
    model = lambda **k: Namespace(log_probs=logps, entropy=zeros, mean_logits=zeros, aux_loss=None)
    stub = Namespace(model=Namespace(training=True), accelerator=ACCELERATOR, calculate_KL=settings["loss"] == "kto",
                     aux_loss_enabled=False, precompute_ref_logps=True, loss_type=settings["loss"],
                     beta=settings["beta"], desirable_weight=settings["desirable_weight"],
                     undesirable_weight=settings["undesirable_weight"], _total_train_tokens=0, _tp_size=1,
                     _metrics={"train": collections.defaultdict(list)},
                     _compute_kl_logps=lambda model, batch: mismatched)
    batch = dict(label=labels, input_ids=torch.zeros_like(ones), attention_mask=ones, completion_mask=ones,
                 ref_logps=ref_logps, ref_KL_logps=torch.zeros(len(mismatched)))
    loss = kto_trainer.KTOTrainer._compute_loss(stub, model, batch, False)
    return loss, {key: values[-1] for key, values in stub._metrics["train"].items()}


def head_inputs():
    random = torch.Generator().manual_seed(24)
    width, vocabulary = 4, 9
    # Learned tokens of a tree, and a sequence whose terms are all masked.
    sequences = [[0], [1, 2, 3], [1, 2, 4, 5], [1, 6, 7, 8, 9, 10], []]
    lengths = torch.tensor([len(s) for s in sequences])
    shape = len(sequences), int(lengths.max())
    single = lambda x: x.float().double()  # Colonnade holds what is given in single precision
    given = dict(hidden=torch.randn((11, width), generator=random),
                 weight=torch.randn((vocabulary, width), generator=random),
                 tokens=torch.randint(vocabulary, (11,), generator=random), sequences=sequences,
                 index=torch.tensor([s + [0] * (shape[1] - len(s)) for s in sequences]),
                 mask=(torch.arange(shape[1]) < lengths[:, None]).long())
    logps, _ = head_outputs(given, given["hidden"], given["weight"], 1.0)
    noise = lambda scale: torch.randn(shape, generator=random) * scale
    given["old"] = single(logps + noise(0.3))
    given["ref"] = single(logps + noise(0.3))
    given["sampled"] = single(given["old"] + noise(0.1))
    given["advantages"] = single(torch.tensor([0.7, -1.2, 1.5, -0.4, 2.0]))
    given["labels"] = torch.tensor([1, 0, 1, 0, 0]).bool()
    given["ref_logps"] = (given["ref"] * given["mask"]).sum(1)
    given["mismatched"] = torch.tensor([0.5, -0.2, 1.1])
    return given


def head_outputs(given, hidden, weight, temperature):
    logits = hidden[given["index"]] @ weight.T / temperature
    return selective_log_softmax(logits, given["tokens"][given["index"]]), entropy_from_logits(logits)


def head_cases(given):
    policies = [dict(loss_type=loss, beta=beta) for loss in ["dapo", "grpo", "dr_grpo", "sapo"] for beta in [0.0, 0.3]]
    policies += [dict(loss_type="cispo", epsilon_high=1.1), dict(loss_type="dapo", delta=1.3),
                 dict(loss_type="dapo", beta=0.3, use_bias_correction_kl=False, importance=True),
                 dict(loss_type="luspo", beta=0.3), dict(loss_type="rloo", epsilon_low=0.1)]
    policies += [dict(loss_type=loss, importance_sampling_level="sequence", beta=0.3, epsilon_low=0.01,
                      epsilon_high=0.02) for loss in ["grpo", "luspo"]]
    policies += [dict(loss_type="grpo", importance_sampling_level="sequence", beta=0.3, use_bias_correction_kl=False,
                      importance=True)]
    cases = [("policy", settings, 1.0) for settings in policies]
    cases += [("policy", dict(loss_type="dapo"), 0.7), ("policy", dict(loss_type="rloo"), 1.3)]
    cases += [("unpaired", dict(loss=loss, beta=0.4, desirable_weight=1.3, undesirable_weight=0.7), 1.0)
              for loss in ["kto", "apo_zero_unpaired"]]
    cases += [("token", dict(loss="dft"), 1.0)]
    for kind, settings, temperature in cases:
        hidden, weight = given["hidden"].clone().requires_grad_(), given["weight"].clone().requires_grad_()
        logps, entropies = head_outputs(given, hidden, weight, temperature)
        row, metrics = settings, {}
        if kind == "policy":
            row, loss, metrics = policy_loss(settings, given, logps, entropies)
        elif kind == "unpaired":
            loss, metrics = unpaired_loss(settings, logps * given["mask"], given["ref_logps"], given["labels"],
                                          given["mismatched"])
        else:
            loss, _ = sft_loss(settings["loss"], logps * given["mask"], given["mask"], given["mask"].sum())
        dhidden, dweight = torch.autograd.grad(loss, [hidden, weight])
        yield dict(kind=kind, temperature=temperature) | row | dict(
            value=loss.item(), dhidden=dhidden.tolist(), dweight=dweight.tolist(),
            metrics={key: value for key, value in metrics.items() if not key.startswith(("logits/", "num_tokens"))})


def distillation_cases():
    random = torch.Generator().manual_seed(21)
    vocabulary = 7
    for beta in [0.0, 1.0, 0.5, 0.1]:
        for k, scale in [(1, 1.0), (3, 1.0), (6, 3.0), (2, 40.0)]:  # the last: the top k have nearly everything
            teacher = torch.log_softmax(torch.randn(vocabulary, generator=random) * min(scale, 3.0), 0)
            logits = torch.randn(vocabulary, generator=random) * min(scale, 3.0)
            ids = teacher.topk(k).indices
            if scale > 3:
                logits[ids] += scale
            logits.requires_grad_()
            valid = torch.ones(k, dtype=torch.bool)
            student, support = distillation._add_tail_bucket(torch.log_softmax(logits, 0)[ids], valid)
            buckets, _ = distillation._add_tail_bucket(teacher[ids], valid)
            loss = distillation._jsd_divergence(student, buckets, beta, support).sum()
            gradient, = torch.autograd.grad(loss, logits)
            yield dict(beta=beta, teacher=teacher[ids].tolist(), ids=ids.tolist(), logits=logits.tolist(),
                       value=loss.item(), gradient=gradient.tolist())


def advantage_cases():
    random = torch.Generator().manual_seed(22)
    nan = float("nan")
    kinds = [("group", "sum_then_normalize"), ("batch", "sum_then_normalize"), ("none", "sum_then_normalize"),
             ("group", "normalize_then_sum"), ("leave_one_out", "sum_then_normalize")]
    for scale, aggregation in kinds:
        rloo = scale == "leave_one_out"
        for functions, size in [(1, 4), (3, 4), (2, 1)]:
            for normalize, clip in [(False, None), (True, [-0.5, 0.8])] if rloo else [(False, None)]:
                answers = 4 * size
                rewards = torch.randn((answers, functions), generator=random)
                if size > 1:
                    rewards[0:3] = nan      # a group with one scored answer
                    rewards[4:8] = 0.1      # equal rewards
                    rewards[9] = nan
                    rewards[13, 0] = nan    # scored by the others, if there are any
                weights = torch.tensor([1.0, 0.5, 2.0])[:functions]
                kl = torch.randn((answers, 1), generator=random) * 0.1
                kl[4:8] = 0
                stub = Namespace(num_generations=size, num_generations_eval=size, reward_weights=weights,
                                 multi_objective_aggregation=aggregation, scale_rewards=scale,
                                 reward_funcs=[0] * functions, reward_clip_range=clip, beta=0.05,
                                 normalize_advantages=normalize)
                trainer = rloo_trainer.RLOOTrainer if rloo else grpo_trainer.GRPOTrainer
                scope = run_lines(trainer._generate_and_score_completions, "num_generations = self.num_generations if",
                                  "# Slice to keep only the local part",
                                  dict(self=stub, mode="train", rewards_per_func=rewards.clone(), device="cpu",
                                       gather=lambda x: x, old_per_token_logps=kl,
                                       completion_mask=torch.ones(answers, 1),
                                       ref_per_token_logps=torch.zeros(answers, 1)))
                null = lambda rows: [[None if x != x else x for x in row] for row in rows.tolist()]
                stub._metrics = {"train": collections.defaultdict(list)}
                run_lines(trainer._generate_and_score_completions,
                          "rewards = (rewards_per_func * self.reward_weights.to(rewards_per_func.device)",
                          'self._metrics[mode]["frac_reward_zero_std"]', scope)
                finite = lambda key: None if (x := stub._metrics["train"][key][0]) != x else x
                yield dict(scale=scale, aggregation=aggregation, normalize_advantages=normalize, clip=clip,
                           weights=weights.tolist(), rewards=null(rewards),
                           penalties=(0.05 * kl[:, 0]).tolist() if rloo else [],
                           groups=[i // size for i in range(answers)], values=scope["advantages"].tolist(),
                           reward=finite("reward"), reward_std=finite("reward_std"))


def main():
    golden = dict(token=list(token_losses()), importance=list(importance_cases()), unpaired=list(unpaired_cases()),
                  distillation=list(distillation_cases()), advantages=list(advantage_cases()))
    tensors = policy()
    cases = tensors.pop("cases")
    given = head_inputs()
    terms_of = lambda rows: [row[:len(s)] for row, s in zip(rows.tolist(), given["sequences"])]
    head = {key: given[key].tolist() for key in ["hidden", "weight", "tokens", "advantages", "ref_logps", "mismatched"]}
    head |= dict(sequences=given["sequences"], labels=given["labels"].int().tolist(),
                 max_completion_length=MAX_COMPLETION_LENGTH,
                 **{key: terms_of(given[key]) for key in ["old", "ref", "sampled"]})
    golden["head_cases"] = list(head_cases(given))
    lines = lambda rows: "[\n" + ",\n".join("  " + json.dumps(row, allow_nan=False) for row in rows) + "\n ]"
    texts = [f'"policy": {json.dumps(tensors)}', f'"policy_cases": {lines(cases)}', f'"head": {json.dumps(head)}']
    texts += [f'"{name}": {lines(rows)}' for name, rows in golden.items()]
    path = pathlib.Path(__file__).parent / "policy_golden.json"
    path.write_text("{\n " + ",\n ".join(texts) + "\n}\n")
    print(f"{path}: {len(cases)} policy cases, " + ", ".join(f"{len(rows)} {name}" for name, rows in golden.items()))


if __name__ == "__main__":
    main()
