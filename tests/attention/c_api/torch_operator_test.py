#!/usr/bin/env python3
"""The PyTorch operator beside dense attention in the same dtype: gradients, opcheck, torch.compile, masks, errors, and on
a GPU bf16, streams and CUDA graphs. Exits with 77 without PyTorch 2.4; skips tests without a GPU or transformers."""

import os
import sys
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), *[".."] * 3, "attention", "python"))
try:
    import torch
    if tuple(int(n) for n in torch.__version__.split(".")[:2]) < (2, 4):
        raise ImportError(f"PyTorch {torch.__version__}")
    from torch import library as torch_library
    opcheck = torch_library.opcheck
except ImportError as error:
    print(f"skipped: no PyTorch 2.4 or newer here ({error})")
    sys.exit(77)
import colonnade_flashmask as library
from colonnade_flashmask import Mask, flashmask_attention

on_gpu = unittest.skipUnless(torch.cuda.is_available() and torch.cuda.get_device_capability()[0] >= 8, "no CUDA device")
LAYOUTS = ("bhsd", "bshd")


def random(*shape, dtype=torch.float64, device="cpu"):
    return torch.randn(*shape, dtype=dtype, device=device)


def operands(mask, heads=4, kv_heads=2, head_dim=16, layout="bhsd", dtype=torch.float64, device="cpu"):
    def one(tokens, count):
        shape = (mask.batch, count, tokens, head_dim) if layout == "bhsd" else (mask.batch, tokens, count, head_dim)
        return random(*shape, dtype=dtype, device=device).requires_grad_()
    return one(mask.rows, heads), one(mask.length, kv_heads), one(mask.length, kv_heads)


def dense(q, k, v, mask, layout="bhsd"):
    """Attention with the whole matrix; also lse."""
    if layout == "bshd":
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    group = q.shape[1] // k.shape[1]
    k, v = (t.repeat_interleave(group, 1) for t in (k, v))
    seen = mask.dense().repeat_interleave(q.shape[1] // mask.heads, 1)
    scores = (q @ k.transpose(-1, -2) / q.shape[-1]**0.5).masked_fill(~seen, -torch.inf)
    out = torch.softmax(scores, -1).nan_to_num(0).to(v.dtype) @ v
    return out if layout == "bhsd" else out.transpose(1, 2), scores.logsumexp(-1)


def gradients(out, inputs, dout):
    return torch.autograd.grad(out, inputs, dout)


def masks():
    """Every way to make a mask, with other numbers of rows, batches and heads."""
    ids = torch.tensor([[4] * 9 + [-1] * 3 + [2] * 20 + [3], [1] * 33])
    yield "causal", Mask.causal(33, batch=2)
    yield "window", Mask.causal(33, window=5)
    yield "last rows", Mask.causal(33, rows=7, window=20)
    yield "more rows", Mask.causal(20, rows=33)
    yield "full", Mask.full(33, rows=9)
    for causal in (True, False):
        for window in (None, 4):
            yield "cu_seqlens", Mask.from_cu_seqlens(torch.tensor([0, 7, 7, 26, 30]), length=33, causal=causal, window=window)
            yield "ids", Mask.from_document_ids(ids, causal=causal, window=window)
    yield "tree", Mask.tree([0, 10, 12, 0], [15, 6, 3, 4], length=33)
    yield "columns of heads", Mask.from_columns(torch.randint(1, 34, (2, 2, 33)), causal=True)
    yield "columns", Mask.from_columns(torch.full((33,), 30), None, torch.full((33,), 2), torch.arange(33) // 2 + 2, causal=False)


class Operator(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)

    def near(self, found, wanted, bound):
        self.assertEqual(found.shape, wanted.shape)
        self.assertTrue(torch.allclose(found, wanted, rtol=0, atol=bound, equal_nan=True),
                        f"differs by {(found - wanted).abs().max().item()}, bound {bound}")

    def test_equals_dense_attention(self):
        for name, mask in masks():
            for layout in LAYOUTS:
                with self.subTest(mask=name, layout=layout):
                    inputs = operands(mask, layout=layout)
                    out, lse = flashmask_attention(*inputs, mask, layout=layout, return_lse=True)
                    wanted, wanted_lse = dense(*inputs, mask, layout)
                    self.near(out, wanted, 1e-13)
                    self.assertFalse(lse.requires_grad)
                    self.near(lse.masked_fill(lse.isneginf(), 0), wanted_lse.masked_fill(wanted_lse.isneginf(), 0), 1e-13)
                    self.assertTrue(torch.equal(lse.isneginf(), wanted_lse.isneginf()))
                    dout = random(*out.shape)
                    for found, by_torch in zip(gradients(out, inputs, dout), gradients(wanted, inputs, dout)):
                        self.near(found, by_torch, 1e-13)

    def test_gradcheck(self):
        mask = Mask.from_cu_seqlens(torch.tensor([0, 5, 11]))
        inputs = operands(mask, head_dim=3)
        self.assertTrue(torch.autograd.gradcheck(lambda *x: flashmask_attention(*x, mask), inputs))
        self.assertTrue(torch.autograd.gradcheck(
            lambda *x: library._flashmask(*x, mask.tensor, 1, True, 0.5, False, False)[0], inputs))

    def test_opcheck(self):
        for layout in LAYOUTS:
            for mask in (Mask.causal(9, batch=2), Mask.causal(9, rows=4)):
                inputs = operands(mask, head_dim=8, layout=layout)
                settings = (mask.tensor, 1, True, 0.5, False, layout == "bshd")
                opcheck(library._flashmask, (*inputs, *settings))
                with torch.no_grad():
                    out, lse = library._flashmask(*inputs, *settings)
                    opcheck(library._flashmask_backward, (out, out, lse, *inputs, *settings))

    def test_whole_graph_is_compiled_once_for_all_masks_of_a_size(self):
        counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")

        def layer(q, k, v, mask):
            return flashmask_attention(q * 2, k, v, mask) + 1
        compiled = torch.compile(layer, fullgraph=True, backend=counter)
        for borders in ([0, 40], [0, 9, 40], [0, 9, 20, 31]):
            mask = Mask.from_cu_seqlens(torch.tensor(borders), length=40)
            inputs = operands(mask)
            dout = random(1, 4, 40, 16)
            found, wanted = compiled(*inputs, mask), layer(*inputs, mask)
            self.near(found, wanted, 1e-13)
            for a, b in zip(gradients(found, inputs, dout), gradients(wanted, inputs, dout)):
                self.near(a, b, 1e-13)
        self.assertEqual(counter.frame_count, 1)

    def test_masks_are_made_in_compiled_code(self):
        def step(q, k, v, ids):
            return flashmask_attention(q, k, v, Mask.from_position_ids(ids))
        ids = torch.cat([torch.arange(n) for n in (9, 4, 17)])
        inputs = operands(Mask.causal(30))
        self.near(torch.compile(step, fullgraph=True, backend="aot_eager")(*inputs, ids), step(*inputs, ids), 1e-13)

    def test_strides(self):
        mask = Mask.causal(24, batch=2)
        packed = random(2, 24, 8, 16).requires_grad_()  # 4 heads of q, 2 of k, 2 of v
        parts = packed.split((4, 2, 2), 2)
        slices = [t.transpose(1, 2) for t in parts]
        self.assertTrue(all(library._readable(t, False) is t for t in slices), "slices of packed rows are read in place")
        self.assertTrue(all(library._readable(t, True) is t for t in parts))
        dout = random(2, 4, 24, 16)
        found, wanted = flashmask_attention(*slices, mask), dense(*slices, mask)[0]
        self.near(found, wanted, 1e-13)
        self.near(gradients(found, packed, dout)[0], gradients(wanted, packed, dout)[0], 1e-13)
        # Read from a copy: values apart, or one row for all, as the gradient of a sum is.
        q, k, v = operands(mask)
        apart = q.detach().transpose(2, 3).contiguous().transpose(2, 3).requires_grad_()
        for inputs in ((apart, k, v), (q, k[:, :1].expand(-1, 2, -1, -1), v), (q, k, v[:, :, :1].expand(-1, -1, 24, -1))):
            leaves = [t for t in (apart, q, k, v) if any(t is i or i._base is t for i in inputs)]
            found, wanted = flashmask_attention(*inputs, mask).sum(), dense(*inputs, mask)[0].sum()
            self.near(found, wanted, 1e-11)
            for a, b in zip(gradients(found, leaves, None), gradients(wanted, leaves, None)):
                self.near(a, b, 1e-13)

    def test_who_looks_on_sees_the_operator(self):
        from torch.utils._python_dispatch import TorchDispatchMode
        seen = []

        class Watch(TorchDispatchMode):
            def __torch_dispatch__(self, function, types, args=(), kwargs=None):
                seen.append(str(function))
                return function(*args, **(kwargs or {}))
        mask = Mask.causal(6)
        with Watch():
            flashmask_attention(*operands(mask), mask).sum().backward()
        self.assertIn("colonnade.flashmask.default", seen)
        self.assertIn("colonnade.flashmask_backward.default", seen)

    def test_checkpointing_and_threads(self):
        mask = Mask.from_cu_seqlens(torch.tensor([0, 13, 30]))
        inputs, dout = operands(mask), random(1, 4, 30, 16)
        wanted = gradients(flashmask_attention(*inputs, mask), inputs, dout)
        again = torch.utils.checkpoint.checkpoint(flashmask_attention, *inputs, mask, use_reentrant=False)
        self.assertTrue(all(torch.equal(a, b) for a, b in zip(gradients(again, inputs, dout), wanted)))
        equal = []

        def work():
            found = gradients(flashmask_attention(*inputs, mask), inputs, dout)
            equal.append(all(torch.equal(a, b) for a, b in zip(found, wanted)))
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(equal, [True] * 4)

    def test_gradients_of_gradients_are_refused(self):
        mask = Mask.causal(6)
        inputs = operands(mask)
        out, dout = flashmask_attention(*inputs, mask), random(1, 4, 6, 16).requires_grad_()
        grads = torch.autograd.grad(out, inputs, dout, create_graph=True)
        with self.assertRaisesRegex(RuntimeError, "once_differentiable"):
            grads[0].sum().backward()

    def test_errors_are_one_line(self):
        mask = Mask.causal(8)
        q, k, v = operands(mask)
        wrong = Mask(torch.full((4, 1, 1, 8), 9, dtype=torch.int32), 8, True)
        ids = torch.tensor([[1, 1, 1, 1], [3, 3, 1, 3]])
        cases = [
            (ValueError, r"lts\[batch 0, head 0, column 2\] is 99, expected 0..8",
             lambda: Mask.from_columns(torch.tensor([8, 8, 99, 8, 8, 8, 8, 8]))),
            (ValueError, r"column 0\] is 2147483647", lambda: Mask.from_columns(torch.tensor([2**40] * 8))),
            (TypeError, "torch.float32, expected integers", lambda: Mask.from_columns(torch.ones(8))),
            (ValueError, "no vector is given", lambda: Mask.from_columns()),
            (ValueError, "lts <= lte", lambda: Mask.from_columns(torch.tensor([5]), torch.tensor([3]), rows=8)),
            (ValueError, r"cu_seqlens \[0, 5, 3\]", lambda: Mask.from_cu_seqlens(torch.tensor([0, 5, 3]), length=8)),
            (ValueError, r"cu_seqlens \[1, 8\]", lambda: Mask.from_cu_seqlens(torch.tensor([1, 8]))),
            (ValueError, "batch 1, token 3: id 3 comes back", lambda: Mask.from_document_ids(ids)),
            (ValueError, r"cu_seqlens \[1, 2\], expected", lambda: Mask.from_cu_seqlens(torch.tensor([[0, 8]]))),
            (ValueError, r"columns \[4, 8\] torch.int64", lambda: Mask(torch.zeros(4, 8, dtype=torch.int64), 8, True)),
            (ValueError, "a window of 0", lambda: Mask.causal(8, window=0)),
            (ValueError, "a window of 0", lambda: Mask.from_document_ids(ids[:1], window=0)),
            (ValueError, "sequence 1 shares 9 tokens", lambda: Mask.tree([0, 9], [4, 4])),
            (ValueError, "1 shared and 2 own", lambda: Mask.tree([0], [4, 4])),
            (ValueError, "cannot replace", lambda: mask.copy_(Mask.causal(9))),
            (ValueError, r"column 0\] is 9", lambda: flashmask_attention(q, k, v, wrong)),
            (ValueError, "8 columns on cpu for batch 1, 4 rows, 8 columns", lambda: flashmask_attention(q[:, :, :4], k, v, mask)),
            (ValueError, "layout is 'sbhd'", lambda: flashmask_attention(q, k, v, mask, layout="sbhd")),
            (TypeError, "torch.float16", lambda: flashmask_attention(q.half(), k.half(), v.half(), mask)),
            (TypeError, "one dtype", lambda: flashmask_attention(q.float(), k, v, mask)),
            (ValueError, "k and v alike", lambda: flashmask_attention(q, k, v[..., :8], mask)),
            (ValueError, "one device", lambda: flashmask_attention(q.to("meta"), k, v, mask)),
            (RuntimeError, "no kernel for bf16 on device cpu",
             lambda: flashmask_attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), mask)),
            (RuntimeError, "a multiple of the 3 kv_heads",
             lambda: flashmask_attention(q, torch.cat((k, k[:, :1]), 1), torch.cat((v, v[:, :1]), 1), mask)),
        ]
        for kind, pattern, call in cases:
            with self.subTest(pattern=pattern):
                with self.assertRaisesRegex(kind, pattern) as caught:
                    call()
                self.assertNotIn("\n", str(caught.exception))

    def test_transformers(self):
        try:
            from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM
            import colonnade_transformers
        except ImportError as error:
            self.skipTest(f"no transformers: {error}")
        colonnade_transformers.register()
        sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8,
                 "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3}
        ids = torch.randint(0, 64, (1, 40))
        packed = torch.cat([torch.arange(n) for n in (13, 7, 20)])[None]
        padding = torch.ones(1, 40, dtype=torch.long)
        padding[0, 31:] = 0
        for model in (LlamaForCausalLM(LlamaConfig(**sizes)), MistralForCausalLM(MistralConfig(**sizes, sliding_window=7))):
            model.double()

            def run(implementation, **inputs):
                model.set_attn_implementation(implementation)
                model.zero_grad()
                labels = ids.masked_fill(inputs.get("attention_mask", torch.ones_like(ids)) == 0, -100)
                model(input_ids=ids, labels=labels, use_cache=False, **inputs).loss.backward()
                return [p.grad for p in model.parameters()]
            for inputs in ({"position_ids": packed}, {}, {"attention_mask": padding}):
                with self.subTest(model=type(model).__name__, inputs=list(inputs)):
                    for found, wanted in zip(run("colonnade", **inputs), run("sdpa", **inputs)):
                        self.near(found, wanted, 1e-6)  # its norms round to float32
            answers = []
            for implementation in ("colonnade", "sdpa"):
                model.set_attn_implementation(implementation)
                answers.append(model.generate(ids, attention_mask=padding.flip(1), max_new_tokens=9, do_sample=False,
                                              pad_token_id=0))
            self.assertTrue(torch.equal(*answers))
            model.set_attn_implementation("colonnade")
            with self.assertRaisesRegex(ValueError, "has dropout"):
                layer = model.model.layers[0].self_attn
                layer.attention_dropout = 0.1
                model.train()(input_ids=ids)


@on_gpu
class OnAGpu(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)

    def compare(self, mask, layout="bhsd", head_dim=128, heads=8, kv_heads=2):
        """The error against dense attention in f32 is at most twice that of dense attention in bf16."""
        inputs = operands(mask, heads, kv_heads, head_dim, layout, torch.bfloat16, "cuda")
        exact = [t.detach().float().requires_grad_() for t in inputs]
        shape = inputs[0].shape
        dout = random(*shape, dtype=torch.bfloat16, device="cuda")
        results = []
        for leaves, attention in ((inputs, lambda *x: flashmask_attention(*x, mask, layout=layout)),
                                  (exact, lambda *x: dense(*x, mask, layout)[0]),
                                  (inputs, lambda *x: dense(*x, mask, layout)[0])):
            out = attention(*leaves)
            results.append([out, *gradients(out, leaves, dout.to(out.dtype))])
        for name, found, wanted, yardstick in zip(("out", "dq", "dk", "dv"), *results):
            error, allowed = ((x.float() - wanted).abs().max().item() for x in (found, yardstick))
            self.assertLessEqual(error, 2 * allowed + 1e-6, f"{name} of {mask}")

    def test_equals_dense_attention(self):
        borders = torch.tensor([0, 300, 301, 700], device="cuda")
        for head_dim in (64, 96, 128, 256):
            for layout in LAYOUTS:
                for causal in (True, False):
                    self.compare(Mask.from_cu_seqlens(borders, length=777, causal=causal), layout, head_dim)
        self.compare(Mask.causal(500, batch=2, window=64, device="cuda"), heads=4, kv_heads=4)
        self.compare(Mask.causal(500, rows=130, device="cuda"))
        self.compare(Mask.tree([0, 100, 100, 0], [220, 130, 90, 60], device="cuda"))
        self.compare(Mask.from_columns(torch.randint(1, 401, (2, 4, 400), device="cuda")))

    def test_masks_equal_those_of_the_cpu(self):
        ids = torch.tensor([[4] * 900 + [-1] * 30 + [2] * 200 + [3], [1] * 1131])
        borders = torch.tensor([0, 7, 7, 826, 1130], dtype=torch.int32)
        for causal in (True, False):
            for window in (None, 100):
                for make in (lambda d: Mask.from_document_ids(ids.to(d), causal=causal, window=window),
                             lambda d: Mask.from_cu_seqlens(borders.to(d), length=1131, causal=causal, window=window)):
                    cpu, gpu = make("cpu"), make("cuda")
                    self.assertTrue(torch.equal(cpu.columns, gpu.columns.cpu()))
                    self.assertEqual(gpu.tensor.numel(), cpu.to("cuda").tensor.numel())

    def test_nothing_waits(self):
        mask_ids = torch.arange(1024, device="cuda") // 300
        inputs = operands(Mask.causal(1024, device="cuda"), 8, 2, 128, "bhsd", torch.bfloat16, "cuda")
        dout = torch.randn_like(inputs[0])
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            out = flashmask_attention(*inputs, Mask.from_document_ids(mask_ids))
            torch.autograd.grad(out, inputs, dout)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def test_works_on_the_current_stream(self):
        mask = Mask.causal(2048, device="cuda")
        q, k, v = operands(mask, 8, 2, 128, "bhsd", torch.bfloat16, "cuda")
        wanted = flashmask_attention(q, k, v, mask)
        side = torch.cuda.Stream()
        with torch.cuda.stream(side), torch.no_grad():
            flashmask_attention(q, k, v, mask)  # takes memory of this stream
        late = torch.zeros_like(q)
        torch.cuda.synchronize()
        with torch.cuda.stream(side), torch.no_grad():
            torch.cuda._sleep(100_000_000)  # attention on another stream would read zeros
            late.copy_(q)
            out = flashmask_attention(late, k, v, mask)
        self.assertFalse(side.query(), "the call waited for the stream")
        side.synchronize()
        self.assertTrue(torch.equal(out, wanted))

    def test_cuda_graph_shows_other_masks_of_the_size(self):
        masks = [Mask.from_cu_seqlens(torch.tensor(b, device="cuda"), length=1000) for b in ([0, 1000], [0, 333, 900])]
        shown = Mask.causal(1000, device="cuda")
        inputs = operands(shown, 8, 2, 128, "bhsd", torch.bfloat16, "cuda")
        dout = torch.randn_like(inputs[0])

        def step():
            out = flashmask_attention(*inputs, shown, deterministic=True)
            return [out, *torch.autograd.grad(out, inputs, dout)]
        warm = torch.cuda.Stream()
        warm.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(warm):
            step()
        torch.cuda.current_stream().wait_stream(warm)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = step()
        for mask in masks:
            shown.copy_(mask)
            graph.replay()
            for found, wanted in zip(results, step()):
                self.assertTrue(torch.equal(found, wanted))

    def test_compiled(self):
        for mode in ("default", "reduce-overhead"):
            compiled = torch.compile(lambda q, k, v, m: flashmask_attention(q + q, k, v, m, deterministic=True),
                                     fullgraph=True, mode=mode)
            for border in (100, 700, 400, 300):
                mask = Mask.from_cu_seqlens(torch.tensor([0, border, 900], device="cuda"), length=900)
                inputs = operands(mask, 8, 2, 128, "bhsd", torch.bfloat16, "cuda")
                dout = torch.randn_like(inputs[0])
                found = compiled(*inputs, mask)
                grads = gradients(found, inputs, dout)
                wanted = flashmask_attention(inputs[0] + inputs[0], *inputs[1:], mask, deterministic=True)
                self.assertTrue(torch.equal(found, wanted))
                for a, b in zip(grads, gradients(wanted, inputs, dout)):
                    self.assertTrue(torch.equal(a, b))

    def test_opcheck(self):
        mask = Mask.causal(200, device="cuda")
        inputs = operands(mask, 4, 2, 64, "bhsd", torch.bfloat16, "cuda")
        opcheck(library._flashmask, (*inputs, mask.tensor, 1, True, 0.125, True, False))
        opcheck(library._plan, (mask.columns, 200, True))

    def test_strides_and_autocast(self):
        mask = Mask.causal(300, device="cuda")
        packed = random(1, 300, 12, 64, dtype=torch.bfloat16, device="cuda")
        parts = [t.transpose(1, 2) for t in packed.split((8, 2, 2), 2)]
        self.assertTrue(all(library._readable(t, False) is t for t in parts))
        wanted = flashmask_attention(*(t.contiguous() for t in parts), mask)
        self.assertTrue(torch.equal(flashmask_attention(*parts, mask), wanted))
        odd = random(1, 8, 300, 65, dtype=torch.bfloat16, device="cuda")[..., 1:]  # not at 16 bytes
        self.assertTrue(torch.equal(flashmask_attention(odd, *parts[1:], mask),
                                    flashmask_attention(odd.contiguous(), *parts[1:], mask)))
        with torch.autocast("cuda", torch.bfloat16):
            self.assertTrue(torch.equal(flashmask_attention(*(t.float() for t in parts), mask), wanted))

    def test_wrong_values_on_the_device_touch_nothing_else(self):
        columns = torch.randint(-2**31, 2**31 - 1, (4, 1, 1, 700), dtype=torch.int32, device="cuda")
        mask = Mask(columns, 700, True)
        inputs = operands(mask, 4, 2, 64, "bhsd", torch.bfloat16, "cuda")
        gradients(flashmask_attention(*inputs, mask), inputs, torch.randn_like(inputs[0]))
        torch.cuda.synchronize()
        with self.assertRaisesRegex(ValueError, "column mask: lts"):
            Mask.from_columns(columns[0, 0, 0])

    def test_second_device(self):
        if torch.cuda.device_count() < 2:
            self.skipTest("one CUDA device")
        for head_dim in (96, 128):  # portable and Hopper's kernels
            results = []
            for device in ("cuda:0", "cuda:1"):
                torch.manual_seed(3)
                mask = Mask.causal(500).to(device)
                inputs = [t.detach().to(device, torch.bfloat16).requires_grad_() for t in operands(mask, 4, 2, head_dim)]
                out = flashmask_attention(*inputs, mask, deterministic=True)
                results.append([t.cpu() for t in (out, *gradients(out, inputs, torch.ones_like(out)))])
                self.assertEqual(torch.cuda.current_device(), 0)
            self.assertTrue(all(torch.equal(a, b) for a, b in zip(*results)))


if __name__ == "__main__":
    unittest.main()
