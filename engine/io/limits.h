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
/// Memory of the values of a JSON text: a factor of the limit of its bytes, from a least to a most. A text of empty
/// arrays takes 35 times its bytes. The values of a tokenizer.json of 33 MB take 130 MB, those of a row of 1 million
/// tokens with labels 60 MB.
inline constexpr size_t json_memory_per_byte = 4, json_memory_least = 32 * mib, json_memory_most = 160 * mib;

// --- Config of a run (train/config) ---

inline constexpr size_t yaml_bytes = mib, yaml_depth = 32, yaml_values = 10'000;
inline constexpr size_t readme_bytes = 16 * mib, card_bytes = 256 << 10;  ///< README.md of a data set, its configs

// --- Weights (engine/io, train/model) ---

inline constexpr size_t model_config_bytes = mib;  ///< config.json: below 10 kB
inline constexpr int model_config_depth = 16;
/// The headers and the index of a 70B model have 90 kB.
inline constexpr size_t safetensors_header_bytes = 4 * mib, safetensors_index_bytes = 4 * mib;
inline constexpr int safetensors_depth = 8;
inline constexpr size_t tensors = 65'536, tensor_name_bytes = 1024;  ///< of a file; a 70B model has 723
inline constexpr size_t safetensors_dimensions = 8, gguf_dimensions = 4;
inline constexpr uint64_t gguf_header_bytes = 32 * mib;  ///< with the vocabulary: up to 20 MB
inline constexpr uint64_t gguf_pairs = 65'536, gguf_alignment = gib;
inline constexpr uint64_t gguf_elements = uint64_t{1} << 21;  ///< of an array: up to 514,906 merges

// --- Answers of a hub (engine/hub) ---

inline constexpr size_t hub_answer_bytes = 16 * mib;  ///< a page of 1000 files has 300 kB
inline constexpr size_t hub_files = 100'000, hub_pages = 1000, hub_path_bytes = 1024, hub_name_bytes = 96;
inline constexpr uint64_t hub_file_bytes = uint64_t{1} << 44;
inline constexpr long hub_redirects = 10;
inline constexpr int hub_json_depth = 16;
inline constexpr double hub_wait_seconds = 330;  ///< that a hub may ask for: its limits count in 5 minutes

// --- HDF5: token stores, checkpoints (engine/io) ---

inline constexpr int hdf5_dimensions = 4, hdf5_depth = 16;  ///< depth: of groups
inline constexpr uint64_t hdf5_chunk_bytes = 16 * mib;      ///< the library keeps whole chunks in memory

// --- Tokenizers (data/text) ---

inline constexpr size_t tokenizer_json_bytes = 40 * mib;  ///< up to 35 MB
inline constexpr size_t sentencepiece_bytes = 32 * mib;   ///< up to 5 MB
/// Texts and messages of a SentencePiece model beside its pieces: symbols, settings.
inline constexpr size_t sentencepiece_others = 65'536;
inline constexpr size_t training_line_bytes = gib;  ///< of a text that a tokenizer is trained on
inline constexpr size_t charsmap_bytes = 64 * mib;  ///< 300 kB
inline constexpr size_t tokens = size_t{1} << 24, sentencepiece_pieces = 1'000'000;  ///< up to 262,144
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
inline constexpr size_t render_text_bytes = 16 * mib;  ///< of one text; a row has no more
inline constexpr size_t render_live_bytes = 64 * mib;  ///< of all values at a time

// --- Rows (data/rows) ---

inline constexpr size_t data_files = 1'000'000;  ///< entries of a folder
inline constexpr size_t row_bytes = 16 * mib;    ///< JSON text of a row
inline constexpr size_t large_row_bytes = mib;   ///< the values of one such row exist at a time
inline constexpr int row_depth = 64;
inline constexpr size_t message_keys = 256, template_variables = 256;  ///< lookups take linear time

// --- Parquet (data/rows/files/parquet) ---

inline constexpr size_t parquet_footer_bytes = 64 * mib, parquet_schema_elements = size_t{1} << 16;
inline constexpr int parquet_levels = 30, thrift_depth = 32;
inline constexpr size_t parquet_columns = 4096, parquet_path_bytes = 4096;
inline constexpr size_t parquet_page_bytes = 512 * mib, parquet_page_header_bytes = 16 * mib;
inline constexpr int64_t parquet_page_values = int64_t{1} << 24;
/// Larger pages are compressed to no less than a share of their size: 5 to 10 in real files.
inline constexpr int64_t parquet_plain_page_bytes = 32 * mib, parquet_compression = 64;
inline constexpr size_t parquet_open_bytes = gib;  ///< decompressed pages of all columns at a time

// --- Programs (train) ---

inline constexpr size_t prompts_bytes = 64 * mib;        ///< the prompts of generate
inline constexpr size_t curve_points = size_t{1} << 17;  ///< of a picture; far more than it has columns

}  // namespace colonnade::limits
