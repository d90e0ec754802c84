"""FlashMask as the attention of Hugging Face transformers.

    import colonnade_transformers
    colonnade_transformers.register()
    model = AutoModelForCausalLM.from_pretrained(name, attn_implementation="colonnade", dtype=torch.bfloat16)

Documents that are packed into a row are kept apart by position_ids that begin again, as DataCollatorWithFlattening makes
them. docs/pytorch.md says what else works, and what is refused.
"""

import torch
from transformers import AttentionInterface, AttentionMaskInterface

from colonnade_flashmask import Mask, flashmask_attention

__all__ = ["register"]

_recent_masks = {}  # by what they were made from; these tensors stay alive as long, so that their ids stay theirs


def _make_mask(position_ids, padding, batch, rows, columns, window, device):
    """rows < columns: the first keys come from a cache."""
    if rows == columns:
        return Mask.from_position_ids(position_ids.expand(batch, -1), window=window,
                                      padding=None if padding is None else padding == 0)
    mask = Mask.causal(columns, rows=rows, batch=batch, window=window, device=device)
    if padding is None:
        return mask
    return Mask.from_columns(mask.columns[0].masked_fill(padding[:, None] == 0, 0), rows=rows, check=False)


def _shared_mask(position_ids, padding, *settings):
    """The mask that all layers with the same window share."""
    if torch.compiler.is_compiling():
        return _make_mask(position_ids, padding, *settings)
    sources = (position_ids, padding)
    key = (*((id(t), None if t is None or t.is_inference() else t._version) for t in sources), *settings)
    if key not in _recent_masks:
        while len(_recent_masks) > 3:
            del _recent_masks[next(iter(_recent_masks))]
        _recent_masks[key] = _make_mask(position_ids, padding, *settings), sources
    return _recent_masks[key][0]


def _padding(batch_size, q_length, kv_length, q_offset=0, kv_offset=0, attention_mask=None, **_):
    """What transformers hands to each layer as its attention_mask: the padding, [batch, kv_length], or None."""
    if int(q_offset) + q_length != kv_offset + kv_length:
        raise ValueError(f"colonnade attention: {kv_length} keys for tokens {int(q_offset)} to {int(q_offset) + q_length}: "
                         "a static cache has keys that nobody wrote; expected a dynamic cache")
    return None if attention_mask is None else attention_mask[:, -kv_length:]


def _attention(module, query, key, value, attention_mask, dropout=0.0, scaling=None, sliding_window=None,
               position_ids=None, **others):
    """query [batch, heads, rows, head_dim] -> [batch, rows, heads, head_dim]."""
    batch, _, rows, _ = query.shape
    columns = key.shape[2]
    wrong = [name for name in ("softcap", "s_aux", "position_bias", "indexer_mask", "block_indices", "chunk_size")
             if others.get(name) is not None]
    wrong += ["dropout"] if dropout else []
    wrong += [] if others.get("is_causal", getattr(module, "is_causal", True)) else ["no causal mask"]
    if position_ids is None or position_ids.dim() != 2:
        wrong.append("no position_ids [batch, tokens]")
    if attention_mask is not None and list(attention_mask.shape) != [batch, columns]:
        wrong.append(f"a mask {list(attention_mask.shape)} instead of padding {[batch, columns]}")
    if wrong:
        raise ValueError(f"colonnade attention: {type(module).__name__} has {', '.join(wrong)}: FlashMask cannot do that, "
                         "take attn_implementation='sdpa'")
    mask = _shared_mask(position_ids, attention_mask, batch, rows, columns, sliding_window, query.device)
    return flashmask_attention(query, key, value, mask, scale=scaling).transpose(1, 2), None


def register(name="colonnade"):
    """Makes `name` an attn_implementation."""
    AttentionInterface.register(name, _attention)
    AttentionMaskInterface.register(name, _padding)
