#pragma once
// Limits on what is read from files of unknown origin, in one place, so that whatever a file says, memory, time and
// recursion stay bounded. Real files stay far below; the comments say how far. What is beyond a limit is refused with
// the figure. Limits that a setting of the user decides, such as max_length, are not here.

#include <cstddef>
#include <cstdint>

namespace colonnade::limits {

inline constexpr size_t kib = 1024, mib = 1024 * kib, gib = 1024 * mib;

// --- Files in general ---

inline constexpr size_t file_bytes = gib;       ///< a file that is read at once, unless a limit below is for its kind
inline constexpr unsigned probe_seconds = 60;   ///< of a child process that tries a file with a library
inline constexpr size_t json_bytes = 16 * mib;  ///< settings of a model, state of a run: at most 2 MB in real models
inline constexpr int json_depth = 64;

// --- Config of a run (train/config) ---

inline constexpr size_t yaml_bytes = mib, yaml_depth = 32, yaml_values = 10'000;

// --- Weights (engine/io, train/model) ---

inline constexpr size_t model_config_bytes = mib;  ///< config.json: below 10 kB
inline constexpr int model_config_depth = 16;
/// JSON takes up to 35 times its size in memory. The headers and the index of a 70B model have 90 kB.
inline constexpr size_t safetensors_header_bytes = 4 * mib, safetensors_index_bytes = 4 * mib;
inline constexpr int safetensors_depth = 8;
inline constexpr size_t tensors = 65'536, tensor_name_bytes = 1024;  ///< of a file; a 70B model has 723
inline constexpr size_t safetensors_dimensions = 8, gguf_dimensions = 4;
inline constexpr uint64_t gguf_header_bytes = 64 * mib;  ///< with the vocabulary: up to 20 MB
inline constexpr uint64_t gguf_pairs = 65'536, gguf_alignment = gib;

// --- Answers of a hub (engine/hub) ---

inline constexpr size_t hub_answer_bytes = 16 * mib;  ///< a page of 1000 files has 300 kB
inline constexpr size_t hub_files = 100'000, hub_pages = 1000, hub_path_bytes = 1024, hub_name_bytes = 96;
inline constexpr uint64_t hub_file_bytes = uint64_t{1} << 44;
inline constexpr long hub_redirects = 10;
inline constexpr int hub_json_depth = 16;
inline constexpr double hub_wait_seconds = 330;  ///< that a hub may ask for: its limits count in 5 minutes

// --- HDF5: token stores, checkpoints (engine/io) ---

inline constexpr int hdf5_dimensions = 4, hdf5_depth = 16;  ///< depth: of groups
inline constexpr uint64_t hdf5_chunk_bytes = 256 * mib;     ///< the library keeps whole chunks in memory

// --- Tokenizers (data/text) ---

inline constexpr size_t tokenizer_json_bytes = 64 * mib, sentencepiece_bytes = 64 * mib;  ///< up to 35 MB
inline constexpr size_t charsmap_bytes = 64 * mib;                                        ///< 300 kB
inline constexpr size_t tokens = size_t{1} << 24, sentencepiece_pieces = 1'000'000;       ///< up to 262,144
inline constexpr size_t token_bytes = 1024;         ///< matching takes time in proportion to it
inline constexpr size_t word_characters = 10'000;   ///< max_input_chars_per_word of WordPiece: 100
inline constexpr size_t encoded_bytes = 256 * mib;  ///< text that is encoded at once

// --- Regular expressions of tokenizers (data/text/regex.h) ---

inline constexpr size_t pattern_bytes = 64 * kib, translated_bytes = mib;
inline constexpr int pattern_depth = 16, pattern_nested_classes = 3, pattern_repeats = 1000, pattern_sets = 1000;
inline constexpr uint32_t match_steps = 20'000'000,
                          match_kilobytes = 256 * 1024;                    ///< of PCRE2, for one place of a text
inline constexpr double match_seconds = 2, match_seconds_per_byte = 1e-6;  ///< for a whole text

// --- Chat templates (data/text/jinja) ---

inline constexpr size_t template_bytes = mib;  ///< source: up to 50 KB
inline constexpr size_t template_depth = 200;  ///< of the syntax tree, and of lists in lists
inline constexpr size_t render_depth = 400;    ///< nested expressions, blocks and macro calls
inline constexpr uint64_t render_steps = 20'000'000;
inline constexpr size_t render_text_bytes = 64 * mib;

// --- Rows (data/rows) ---

inline constexpr size_t data_files = 1'000'000;  ///< entries of a folder
inline constexpr size_t row_bytes = 16 * mib;    ///< JSON text of a row
inline constexpr int row_depth = 64;
inline constexpr size_t message_keys = 256, template_variables = 256;  ///< lookups take linear time

// --- Parquet (data/rows/files/parquet) ---

inline constexpr size_t parquet_footer_bytes = 64 * mib, parquet_schema_elements = size_t{1} << 16;
inline constexpr int parquet_levels = 30, thrift_depth = 32;
inline constexpr size_t parquet_columns = 4096, parquet_path_bytes = 4096;
inline constexpr size_t parquet_page_bytes = 512 * mib, parquet_page_header_bytes = 16 * mib;
inline constexpr int64_t parquet_page_values = int64_t{1} << 24;
inline constexpr size_t parquet_open_bytes = gib;  ///< decompressed pages of all columns at a time

}  // namespace colonnade::limits
