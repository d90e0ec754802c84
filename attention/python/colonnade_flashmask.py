"""FlashMask attention as a PyTorch operator.

    from colonnade_flashmask import Mask, flashmask_attention

    mask = Mask.from_cu_seqlens(cu_seqlens, length=q.shape[2])       # once per batch, for all layers
    out = flashmask_attention(q, k, v, mask)                         # q: [batch, heads, length, head_dim]

Gradients, torch.compile(fullgraph=True), CUDA graphs and activation checkpointing work as with PyTorch's own operators.
Work is enqueued on the current stream and nothing waits for it. GPU: bfloat16, head_dim 64, 96, 128, 256. CPU: float32
and float64, head_dim 1 to 256. docs/pytorch.md has examples.

This file needs PyTorch 2.4 or newer and libcolonnade_flashmask.so.1: beside it, in the folder above, in the loader's
path, or where the environment variable COLONNADE_LIBRARY says. Nothing is compiled against PyTorch.
"""

import ctypes
import math
import os
import struct
from pathlib import Path

import torch
from torch import Tensor
from torch import library as torch_library

__all__ = ["Mask", "flashmask_attention"]

custom_op = torch_library.custom_op

_NAME, _ABI = "libcolonnade_flashmask.so.1", 1


def _load():
    here = Path(__file__).resolve().parent
    named = os.environ.get("COLONNADE_LIBRARY")
    places = [named] if named else [str(here / _NAME), str(here.parent / _NAME), _NAME]
    reasons = []
    for place in places:
        try:
            library = ctypes.CDLL(place)
        except OSError as error:
            reasons.append(str(error))
            continue
        if library.colonnade_flashmask_abi() != _ABI:
            raise ImportError(f"{place} has interface {library.colonnade_flashmask_abi()} of FlashMask, expected {_ABI}: "
                              "take the library and colonnade_flashmask.py from one release")
        return library
    raise ImportError(f"no {_NAME}: {'; '.join(reasons)}; set COLONNADE_LIBRARY to its path")


_library = _load()
_library.colonnade_last_error.restype = ctypes.c_char_p
_library.colonnade_plan_bytes.restype = _library.colonnade_scratch_bytes.restype = ctypes.c_int64
# The structs of colonnade_flashmask.h, whose members are all 8 bytes wide; a call takes a packed one.
_MASK = "5q4Q"
_PROBLEM = f"6qd{_MASK}QqQ"
_HEADS = "Q3q"
_mask_struct = struct.Struct("=" + _MASK)
_problem_struct = struct.Struct("=" + _PROBLEM)
_forward_struct = struct.Struct(f"={_PROBLEM}{_HEADS}Q{3 * _HEADS}")
_backward_struct = struct.Struct(f"={_PROBLEM}{5 * _HEADS}Q{3 * _HEADS}Qqq")
_forward_call, _backward_call = _library.colonnade_flashmask_forward, _library.colonnade_flashmask_backward
for _call in (_forward_call, _backward_call, _library.colonnade_scratch_bytes, _library.colonnade_plan_bytes,
              _library.colonnade_check_mask):
    _call.argtypes = [ctypes.c_char_p]
_library.colonnade_tree_mask.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_int64] * 2
_library.colonnade_add_window.argtypes = [ctypes.c_void_p] * 2 + [ctypes.c_int64]
_library.colonnade_build_plan.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_char_p, ctypes.c_int64,
                                          ctypes.c_void_p]
_BAD_MASK, _NO_MEMORY = 3, 8
_DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2}


def _check(code):
    if code:
        line = _library.colonnade_last_error().decode()
        raise {_BAD_MASK: ValueError, _NO_MEMORY: MemoryError}.get(code, RuntimeError)(line)


def _bytes(count):
    if count < 0:
        _check(_BAD_MASK)
    return count


# PyTorch's own generated code asks this way; the public way makes an object first.
_current_stream = getattr(torch._C, "_cuda_getCurrentRawStream", None) or (
    lambda index: torch.cuda.current_stream(index).cuda_stream)


def _vector_pointers(columns):
    """Addresses of the four vectors of int32 [4, batch, heads, columns]."""
    first, step = columns.data_ptr(), columns.numel()
    return first, first + step, first + 2 * step, first + 3 * step


# --- Operators. A mask is a tensor: on the CPU its vectors, int32 [4, batch, heads, columns], on a GPU its plan, uint8.


def _mask_of(columns, rows, causal, vectors=True):
    _, batch, heads, length = columns.shape
    return _mask_struct.pack(batch, heads, rows, length, causal, *(_vector_pointers(columns) if vectors else (0,) * 4))


def _new_plan(columns, rows, causal):
    """Zeros: a plan has room for more than a mask needs, and equal masks shall have equal plans."""
    size = _bytes(_library.colonnade_plan_bytes(_mask_of(columns, rows, causal, vectors=False)))
    return columns.new_zeros(size, dtype=torch.uint8)


@custom_op("colonnade::flashmask_plan", mutates_args=())
def _plan(columns: Tensor, rows: int, causal: bool) -> Tensor:
    plan = _new_plan(columns, rows, causal)
    _check(_library.colonnade_build_plan(plan.data_ptr(), plan.numel(), _mask_of(columns, rows, causal),
                                         columns.device.index, _current_stream(columns.device.index)))
    return plan


@_plan.register_fake
def _(columns, rows, causal):
    return _new_plan(columns, rows, causal)


def _ordered(four, bshd):
    """Sizes or strides as batch, tokens, heads, head_dim."""
    if bshd:
        return four
    batch, heads, tokens, dim = four
    return batch, tokens, heads, dim


def _new_strides(shape, bshd):
    """Strides of a new tensor whose memory is [batch, tokens, heads, head_dim]."""
    batch, tokens, heads, dim = _ordered(shape, bshd)
    token = heads * dim
    return (tokens * token, token, dim, 1) if bshd else (tokens * token, dim, token, 1)


def _like(t, bshd):
    return t.new_empty_strided(t.shape, _new_strides(t.shape, bshd))


def _lse_dtype(q):
    return torch.float64 if q.dtype == torch.float64 else torch.float32


def _new_lse(q, bshd):
    batch, rows, heads, _ = _ordered(q.shape, bshd)
    return q.new_empty((batch, heads, rows), dtype=_lse_dtype(q))


def _has_good_strides(t, bshd):
    """Whether the kernels can follow the tensor's strides."""
    if t.is_contiguous():
        return True
    batch, token, head, value = _ordered(t.stride(), bshd)
    sizes = _ordered(t.shape, bshd)
    good = value == 1 and (sizes[1] <= 1 or token >= sizes[3])
    return good and (not t.is_cuda or all(
        n <= 1 or (s > 0 and s % 8 == 0) for n, s in zip(sizes, (batch, token, head))))


def _readable(t, bshd):
    """Returns the tensor if the kernels can read its memory, else a copy."""
    good = _has_good_strides(t, bshd) and (not t.is_cuda or t.data_ptr() % 16 == 0)
    return t if good else t.clone(memory_format=torch.contiguous_format)


def _steps(strides, bshd):
    """Strides of batch, token, head."""
    return _ordered(strides, bshd)[:3]


def _heads(t, bshd):
    return (t.data_ptr(), *_steps(t.stride(), bshd))


class _Call:
    """What calls with the same sizes, strides and settings have in common: all but addresses and the stream."""

    def __init__(self, q, k, v, mask_heads, causal, scale, bshd):
        batch, rows, heads, dim = _ordered(q.shape, bshd)
        _, columns, kv_heads, _ = _ordered(k.shape, bshd)
        self.settings = (mask_heads, causal, scale, bshd)
        self.bshd, self.is_cuda, self.index = bshd, q.is_cuda, q.device.index or 0
        self.sizes = (2 if q.is_cuda else 1, self.index, _DTYPES[q.dtype], heads, kv_heads, dim, scale, batch, mask_heads,
                      rows, columns, causal)
        self.is_readable = all(_has_good_strides(t, bshd) for t in (q, k, v))
        self.steps = tuple(_steps(t.stride(), bshd) for t in (q, k, v))
        self.new = tuple((t.shape, _new_strides(t.shape, bshd)) for t in (q, k, v))
        self.new_steps = tuple(_steps(strides, bshd) for _, strides in self.new)
        self.lse = (batch, heads, rows), _lse_dtype(q)

    def reads(self, q, k, v):
        """Whether the kernels can read the memory of these tensors."""
        return self.is_readable and not (self.is_cuda and (q.data_ptr() | k.data_ptr() | v.data_ptr()) & 15)

    def of_copies(self, q, k, v):
        """Copies the tensors that the kernels cannot read. Returns the call for the result, and the result."""
        inputs = [_readable(t, self.bshd) for t in (q, k, v)]
        return _Call(*inputs, *self.settings), *inputs

    def problem(self, mask):
        if self.is_cuda:
            return (*self.sizes, 0, 0, 0, 0, mask.data_ptr(), mask.numel(), _current_stream(self.index))
        return (*self.sizes, *_vector_pointers(mask), 0, 0, 0)

    def packed_forward(self, out, lse, q, k, v, mask):
        return _forward_struct.pack(
            *self.problem(mask), out.data_ptr(), *self.new_steps[0], lse.data_ptr(), q.data_ptr(), *self.steps[0],
            k.data_ptr(), *self.steps[1], v.data_ptr(), *self.steps[2])

    def forward(self, q, k, v, mask):
        if not self.reads(q, k, v):
            call, *inputs = self.of_copies(q, k, v)
            return call.forward(*inputs, mask)
        shape, dtype = self.lse
        out, lse = q.new_empty_strided(*self.new[0]), q.new_empty(shape, dtype=dtype)
        code = _forward_call(self.packed_forward(out, lse, q, k, v, mask))
        if code:
            _check(code)
        return out, lse

    def backward(self, dout, out, lse, q, k, v, mask, deterministic):
        if not self.reads(q, k, v):
            call, *inputs = self.of_copies(q, k, v)
            return call.backward(dout, out, lse, *inputs, mask, deterministic)
        dout, out, lse = _readable(dout, self.bshd), _readable(out, self.bshd), lse.contiguous()
        dq, dk, dv = (t.new_empty_strided(*new) for t, new in zip((q, k, v), self.new))
        problem, scratch, size = self.problem(mask), None, 0
        if self.is_cuda:
            size = _bytes(_library.colonnade_scratch_bytes(_problem_struct.pack(*problem)))
            scratch = torch.empty(size, dtype=torch.uint8, device=q.device)
        _check(_backward_call(_backward_struct.pack(
            *problem, dq.data_ptr(), *self.new_steps[0], dk.data_ptr(), *self.new_steps[1], dv.data_ptr(),
            *self.new_steps[2], *_heads(dout, self.bshd), *_heads(out, self.bshd), lse.data_ptr(), q.data_ptr(),
            *self.steps[0], k.data_ptr(), *self.steps[1], v.data_ptr(), *self.steps[2],
            scratch.data_ptr() if size else 0, size, deterministic)))
        return dq, dk, dv


@custom_op("colonnade::flashmask", mutates_args=())
def _flashmask(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, mask_heads: int, causal: bool, scale: float,
               deterministic: bool, bshd: bool) -> tuple[Tensor, Tensor]:
    return _Call(q, k, v, mask_heads, causal, scale, bshd).forward(q, k, v, mask)


@_flashmask.register_fake
def _(q, k, v, mask, mask_heads, causal, scale, deterministic, bshd):
    return _like(q, bshd), _new_lse(q, bshd)


@custom_op("colonnade::flashmask_backward", mutates_args=())
def _flashmask_backward(dout: Tensor, out: Tensor, lse: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor,
                        mask_heads: int, causal: bool, scale: float, deterministic: bool,
                        bshd: bool) -> tuple[Tensor, Tensor, Tensor]:
    return _Call(q, k, v, mask_heads, causal, scale, bshd).backward(dout, out, lse, q, k, v, mask, deterministic)


@_flashmask_backward.register_fake
def _(dout, out, lse, q, k, v, mask, mask_heads, causal, scale, deterministic, bshd):
    return _like(q, bshd), _like(k, bshd), _like(v, bshd)


def _save(ctx, inputs, output):
    q, k, v, mask, *ctx.settings = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output, q, k, v, mask)


def _gradients(ctx, dout, dlse):
    if dout is None:
        return (None,) * 9
    return (*_flashmask_backward(dout, *ctx.saved_tensors, *ctx.settings), *(None,) * 6)


_flashmask.register_autograd(_gradients, setup_context=_save)


class _Direct(torch.autograd.Function):
    """The same operator without PyTorch's dispatcher, which takes several times as long as the call itself."""

    @staticmethod
    def forward(ctx, q, k, v, mask, call, deterministic):
        output = call.forward(q, k, v, mask)
        _save(ctx, (q, k, v, mask, call, deterministic), output)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dout, dlse):
        if dout is None:
            return (None,) * 6
        call, deterministic = ctx.settings
        return (*call.backward(dout, *ctx.saved_tensors, deterministic), None, None, None)


def _is_watched(q, k, v):
    """Whether a compiler, a mode or a subclass of Tensor has to see the operator."""
    return (torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack()
            or torch._C._functorch.peek_interpreter_stack() is not None
            or not type(q) is type(k) is type(v) is Tensor)


def _sheets(vector):
    """A vector of a mask as int32 [batch, heads, length]. Numbers that int32 cannot hold stay wrong ones."""
    if vector.is_floating_point() or vector.is_complex() or vector.dtype == torch.bool:
        raise TypeError(f"column mask: a vector of {vector.dtype}, expected integers")
    if not 1 <= vector.dim() <= 3:
        raise ValueError(f"column mask: a vector {list(vector.shape)}, expected [length], [batch, length] or "
                         "[batch, heads, length]")
    vector = vector.clamp(-1, 2**31 - 1).to(torch.int32)
    return vector if vector.dim() == 3 else vector[:, None] if vector.dim() == 2 else vector[None, None]


class Mask:
    """A column mask: key j is hidden from queries [lts[j], lte[j]) and [uts[j], ute[j]), and from earlier ones if causal.

    Four integers per key instead of a matrix (arXiv 2410.01359). A mask belongs to a device and is made once per batch;
    all layers and both passes share it. Constructors compute on the device of the tensors that they are given. Numbers on
    the CPU are checked, a wrong one is a ValueError. Numbers on a GPU are checked by from_columns alone, because that waits.
    """

    def __init__(self, columns, rows, causal):
        """columns: int32 [4, batch, heads, length], the vectors lts, lte, uts, ute. The classmethods are handier."""
        if columns.dtype != torch.int32 or columns.dim() != 4 or columns.shape[0] != 4:
            raise ValueError(f"column mask: columns {list(columns.shape)} {columns.dtype}, expected [4, batch, heads, length] "
                             "torch.int32")
        self.columns, self.rows, self.is_causal = columns.contiguous(), rows, causal
        _, self.batch, self.heads, self.length = columns.shape
        self.tensor = _plan(self.columns, rows, causal) if columns.is_cuda else self.columns
        self.device_type = columns.device.type
        self.key = (columns.device, self.batch, self.heads, rows, self.length, causal)

    @classmethod
    def from_columns(cls, lts=None, lte=None, uts=None, ute=None, *, rows=None, causal=True, check=True):
        """Vectors [length], [batch, length] or [batch, heads, length]; absent ones are rows, rows, 0, 0. rows: queries,
        as many as keys by default. heads divides the query heads. check: numbers on a GPU, too; it waits for them."""
        given = {i: _sheets(v) for i, v in enumerate((lts, lte, uts, ute)) if v is not None}
        if not given:
            raise ValueError("column mask: no vector is given, expected lts, lte, uts or ute; Mask.causal() needs none")
        shape = torch.broadcast_shapes(*(v.shape for v in given.values()))
        rows = shape[2] if rows is None else rows
        columns = next(iter(given.values())).new_empty((4, *shape))
        for i, default in enumerate((rows, rows, 0, 0)):
            columns[i] = given.get(i, default)
        if check or not columns.is_cuda:
            host = columns.cpu()
            _check(_library.colonnade_check_mask(_mask_of(host, rows, causal)))
        return cls(columns, rows, causal)

    @classmethod
    def _documents(cls, begin, end, causal, window):
        """Of each token [batch, length] where its document begins and ends; both 0 in padding."""
        index = torch.arange(end.shape[1], device=end.device)
        if window is not None:
            if window < 1:
                raise ValueError(f"column mask: a window of {window}, expected 1 or more")
            begin, end = torch.where(end > 0, torch.maximum(begin, index - window + 1), 0), torch.minimum(end, index + window)
        columns = torch.zeros((4, end.shape[0], 1, end.shape[1]), dtype=torch.int32, device=end.device)
        columns[0, :, 0], columns[1] = end, end.shape[1]
        if not causal:
            columns[3, :, 0] = begin
        return cls(columns, end.shape[1], causal)

    @classmethod
    def from_cu_seqlens(cls, cu_seqlens, *, length=None, causal=True, window=None):
        """One row of packed documents with the borders cu_seqlens [documents + 1], 0 first. Tokens behind the last one
        are padding, which sees nothing and is not seen. length: tokens of the row, the last border by default, which
        waits for a GPU. window: a query sees only keys less than `window` tokens away."""
        if cu_seqlens.dim() != 1 or cu_seqlens.numel() == 0:
            raise ValueError(f"cu_seqlens {list(cu_seqlens.shape)}, expected [documents + 1]")
        length = int(cu_seqlens[-1]) if length is None else length
        if not cu_seqlens.is_cuda and (cu_seqlens[0] != 0 or (cu_seqlens.diff() < 0).any() or cu_seqlens[-1] > length):
            raise ValueError(f"cu_seqlens {cu_seqlens.tolist()[:8]}... for {length} tokens: expected 0 first, then "
                             "ascending borders up to the number of tokens")
        index = torch.arange(length, device=cu_seqlens.device)
        document = torch.searchsorted(cu_seqlens.long().contiguous(), index, right=True)
        end = torch.nn.functional.pad(cu_seqlens.long(), (0, 1))[document]
        begin = torch.where(end > 0, cu_seqlens.long()[document - 1], 0)
        return cls._documents(begin[None], end[None], causal, window)

    @classmethod
    def from_document_ids(cls, ids, *, causal=True, window=None):
        """ids [length] or [batch, length]: a document is a run of equal ids; a negative id is padding. On the CPU an id
        that comes back after another one is an error; on a GPU it is a document of its own."""
        ids = ids[None] if ids.dim() == 1 else ids
        border = ids[:, 1:] != ids[:, :-1]
        for b in range(0 if ids.is_cuda else len(ids)):
            firsts = (torch.nn.functional.pad(border[b], (1, 0), value=True) & (ids[b] >= 0)).nonzero()[:, 0].tolist()
            seen = set()
            for token, value in zip(firsts, ids[b][firsts].tolist()):
                if value in seen:
                    raise ValueError(f"document ids: batch {b}, token {token}: id {value} comes back after another one, "
                                     "expected the tokens of a document in one run")
                seen.add(value)
        return cls._runs(border, ids < 0, causal, window)

    @classmethod
    def from_position_ids(cls, position_ids, *, causal=True, window=None, padding=None):
        """position_ids [length] or [batch, length]: a document begins at each token whose position is not one more than
        that before it. padding: bool of the same shape, true for tokens that are none."""
        ids = position_ids[None] if position_ids.dim() == 1 else position_ids
        padding = torch.zeros_like(ids, dtype=torch.bool) if padding is None else padding.reshape(ids.shape)
        border = (ids[:, 1:] != ids[:, :-1] + 1) | (padding[:, 1:] != padding[:, :-1])
        return cls._runs(border, padding, causal, window)

    @classmethod
    def _runs(cls, border, padding, causal, window):
        """border [batch, length - 1]: true between the tokens of two documents."""
        index = torch.arange(padding.shape[1], device=padding.device)
        first, last = (torch.nn.functional.pad(border, sides, value=True) for sides in ((1, 0), (0, 1)))
        begin = torch.where(first, index, 0).cummax(1).values
        end = torch.where(last, index + 1, index.numel()).flip(1).cummin(1).values.flip(1)
        return cls._documents(begin.masked_fill(padding, 0), end.masked_fill(padding, 0), causal, window)

    @classmethod
    def causal(cls, length, *, rows=None, batch=1, window=None, device=None):
        """Query i sees key j <= i + length - rows, with a window only keys less than `window` tokens back."""
        rows = length if rows is None else rows
        end = torch.full((batch, length), rows, device=device)
        if window is not None:
            if window < 1:
                raise ValueError(f"column mask: a window of {window}, expected 1 or more")
            end = (torch.arange(length, device=end.device) + (window + rows - length)).clamp(0, rows).expand(batch, -1)
        return cls.from_columns(end, rows=rows, check=False)

    @classmethod
    def full(cls, length, *, rows=None, batch=1, device=None):
        """Every query sees every key."""
        rows = length if rows is None else rows
        return cls.from_columns(torch.full((batch, length), rows, device=device), rows=rows, causal=False, check=False)

    @classmethod
    def tree(cls, shared, own, *, length=None, window=None, device=None):
        """One row of sequences that share beginnings, in the order of a walk of their trie: sequence s has its first
        shared[s] tokens in common with the one before and own[s] tokens behind them, the next columns of the row. Every
        token sees the tokens before it in its sequences. A prompt of 100 tokens with answers of 20 and 30:
        Mask.tree([0, 100], [120, 30]). window: in rows."""
        if len(shared) != len(own):
            raise ValueError(f"tree mask: {len(shared)} shared and {len(own)} own lengths, expected one each per sequence")
        length = sum(own) if length is None else length
        memory = torch.zeros(4 * max(length, 1), dtype=torch.int32)
        mask, counts = ctypes.create_string_buffer(_mask_struct.size), ctypes.c_int64 * max(len(own), 1)
        _check(_library.colonnade_tree_mask(mask, memory.data_ptr(), counts(*shared), counts(*own), len(own), length))
        if window is not None:
            _check(_library.colonnade_add_window(mask, memory.data_ptr(), window))
        vectors = [memory[(p - memory.data_ptr()) // 4:][:length] if p else None for p in _mask_struct.unpack(mask)[5:]]
        return cls.from_columns(*vectors, check=False).to(device)

    def to(self, device):
        """The mask on a device; itself if it is there."""
        moved = self.columns if device is None else self.columns.to(device)
        return self if moved is self.columns else Mask(moved, self.rows, self.is_causal)

    def copy_(self, other):
        """Becomes `other`, a mask of the same sizes: a CUDA graph that has recorded this mask then shows that one."""
        if repr(self) != repr(other):
            raise ValueError(f"column mask: {other} cannot replace {self}")
        self.columns.copy_(other.columns)
        if self.tensor is not self.columns:
            self.tensor.copy_(other.tensor)

    def dense(self):
        """bool [batch, heads, rows, length], true where the query sees the key: for tests, and for other attention."""
        lts, lte, uts, ute = self.columns[:, :, :, None]
        i = torch.arange(self.rows, device=lts.device)[:, None]
        seen = ~((lts <= i) & (i < lte) | (uts <= i) & (i < ute))
        if self.is_causal:
            seen &= torch.arange(self.length, device=lts.device) <= i + self.length - self.rows
        return seen

    def __repr__(self):
        return (f"{'a causal' if self.is_causal else 'a'} mask of batch {self.batch}, {self.heads} heads, {self.rows} rows, "
                f"{self.length} columns on {self.columns.device}")


def flashmask_attention(q, k, v, mask, *, scale=None, deterministic=False, layout="bhsd", return_lse=False):
    """softmax(scale q k^T, hidden pairs left out) v, with query head h on key/value head h // (heads / kv_heads).

    layout "bhsd": q [batch, heads, rows, head_dim], k and v [batch, kv_heads, columns, head_dim], as PyTorch's attention
    functions have them; "bshd": [batch, rows, heads, head_dim]. Any strides; a tensor is copied only if the values of a
    head are not contiguous, if it is expanded, or, on a GPU, if a head does not begin at a multiple of 16 bytes. The
    result has q's shape and [batch, rows, heads, head_dim] in memory.

    scale: 1 / sqrt(head_dim) by default. deterministic: the gradient of q has the same bits in every run on a GPU, as all
    other results always have; torch.use_deterministic_algorithms(True) asks for it as well. return_lse: also returns
    log sum exp of each row, [batch, heads, rows], which has no gradient. A row that sees no key gives 0 and -inf.
    """
    if torch.is_autocast_enabled(mask.device_type):
        dtype = torch.get_autocast_dtype(mask.device_type)
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    deterministic = deterministic or torch.are_deterministic_algorithms_enabled()
    if _is_watched(q, k, v):
        out, lse = _flashmask(q, k, v, mask.tensor, *_settings(q, k, v, mask, scale, layout, deterministic))
    else:
        call = _call_of(q, k, v, mask, scale, layout)
        if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
            out, lse = _Direct.apply(q, k, v, mask.tensor, call, deterministic)
        else:
            out, lse = call.forward(q, k, v, mask.tensor)
    return (out, lse.detach()) if return_lse else out


def _settings(q, k, v, mask, scale, layout, deterministic):
    """The operator's settings. Throws if the tensors do not fit each other or the mask."""
    if layout not in ("bhsd", "bshd"):
        raise ValueError(f"flashmask: layout is {layout!r}, expected 'bhsd' or 'bshd'")
    bshd = layout == "bshd"
    if not q.device == k.device == v.device == mask.tensor.device:
        raise ValueError(f"flashmask: q, k, v, mask are on {q.device}, {k.device}, {v.device}, {mask.tensor.device}, "
                         "expected one device: Mask.to(device) moves a mask")
    if q.dtype not in _DTYPES or not q.dtype == k.dtype == v.dtype:
        raise TypeError(f"flashmask: q, k, v are {q.dtype}, {k.dtype}, {v.dtype}, expected one dtype: "
                        "torch.bfloat16 on a GPU, torch.float32 or torch.float64 on the CPU")
    if q.dim() != 4 or k.dim() != 4 or v.shape != k.shape:
        raise ValueError(f"flashmask: q, k, v are {list(q.shape)}, {list(k.shape)}, {list(v.shape)}, expected 4 dims each "
                         f"in the order {layout}, k and v alike")
    batch, rows, _, head_dim = _ordered(q.shape, bshd)
    columns = k.shape[1 if bshd else 2]
    if batch != mask.batch or rows != mask.rows or columns != mask.length:
        raise ValueError(f"flashmask: {mask} for batch {batch}, {rows} rows, {columns} columns")
    return (mask.heads, mask.is_causal, 1 / math.sqrt(head_dim) if scale is None else scale, deterministic, bshd)


_calls = {}


def _call_of(q, k, v, mask, scale, layout):
    """The _Call of these tensors. Looking at tensors takes Python longer than all else, so calls are kept."""
    key = (q.shape, q.stride(), q.dtype, q.device, k.shape, k.stride(), k.dtype, k.device, v.shape, v.stride(), v.dtype,
           v.device, mask.key, scale, layout)
    call = _calls.get(key)
    if call is None:
        mask_heads, causal, scale, _, bshd = _settings(q, k, v, mask, scale, layout, False)
        if len(_calls) >= 1000:  # rows of ever new lengths
            _calls.clear()
        call = _calls[key] = _Call(q, k, v, mask_heads, causal, scale, bshd)
    return call
