#pragma once

namespace colonnade {

/// What stands before a text. Many models put a space in front of a document; old ones also behind special tokens.
enum class TextStart { document, behind_token, continues };

}  // namespace colonnade
