#include <sentencepiece_trainer.h>

#include <algorithm>
#include <exception>
#include <filesystem>
#include <set>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "data/rows/rows.h"
#include "data/text/tokenizer_training.h"
#include "engine/device/error.h"
#include "engine/io/files.h"

namespace colonnade {
namespace {

constexpr size_t longest_line = limits::training_line_bytes;

/// All texts of a row. Throws for rows of token ids.
std::string row_text(const Row& row, const std::string& place) {
    if (!row.input_ids.empty())
        fail(Exit::data, "{}: the row contains token ids; expected text to train a tokenizer on", place);
    std::string text;
    for (const Row& answer : row.answers) text += row_text(answer, place);
    for (const Message& message : row.messages) text += message.content + '\n';
    for (const auto& part : {row.prompt, row.completion})
        if (part) text += *part + '\n';
    return text;
}

/// Iterates over the lines of all files. SentencePiece calls it, so an Error cannot be thrown through: it is stored,
/// reported to SentencePiece as a status, and thrown by rethrow() after the trainer has returned.
class Lines : public sentencepiece::SentenceIterator {
  public:
    explicit Lines(const std::vector<std::string>& files) : files_(files) { Next(); }

    bool done() const override { return done_; }
    const std::string& value() const override { return line_; }
    sentencepiece::util::Status status() const override {
        using namespace sentencepiece::util;
        return error_ ? Status(StatusCode::kDataLoss, "reading text") : Status();
    }
    void Next() override {
        try {
            done_ = !advance();
        } catch (...) {
            error_ = std::current_exception();
            done_ = true;
        }
    }
    void rethrow() const {
        if (error_) std::rethrow_exception(error_);
    }
    int64_t count() const { return count_; }

  private:
    /// Moves to the next non-empty line.
    bool advance() {
        while (begin_ < block_.size() || read_block()) {
            const size_t end = std::min(block_.find('\n', begin_), block_.size());
            line_.assign(block_, begin_, end - begin_);
            begin_ = end + 1;
            if (!line_.empty()) return ++count_, true;
        }
        return false;
    }

    /// Reads lines of a text file, or the texts of a row; false after the last file.
    bool read_block() {
        begin_ = 0;
        while (file_ < files_.size()) {
            const std::string& path = files_[file_];
            const bool found = is_data_file(path) ? read_row(path) : read_lines(path);
            if (found) return true;
            rows_.reset();
            text_.reset();
            ++file_;
        }
        block_.clear();
        return false;
    }
    bool read_row(const std::string& path) {
        if (!rows_) rows_.emplace(DatasetSpec{.path = path});
        RowText row;
        if (!rows_->next_text(row)) return false;
        block_ = row_text(rows_->parse(row), rows_->place(row));
        return true;
    }
    bool read_lines(const std::string& path) {
        if (!text_) text_.emplace(path, Readable::streams);
        block_ = std::exchange(rest_, {});
        for (;;) {
            const size_t before = block_.size();
            if (before > longest_line) fail(Exit::data, "{}: a line of more than {} bytes", path, longest_line);
            block_.resize(before + piece_bytes);
            block_.resize(before + text_->read(block_.data() + before, piece_bytes));
            if (block_.size() == before) return before > 0;
            if (const size_t end = std::string_view(block_).substr(before).rfind('\n'); end != block_.npos) {
                rest_ = block_.substr(before + end + 1);
                block_.resize(before + end);
                return true;
            }
        }
    }

    const std::vector<std::string>& files_;
    size_t file_ = 0;
    std::optional<RowReader> rows_;
    static constexpr size_t piece_bytes = size_t{1} << 16;
    std::optional<InputFile> text_;
    std::string rest_;  ///< the begin of the next line
    std::string block_, line_;
    size_t begin_ = 0;
    int64_t count_ = 0;
    bool done_ = false;
    std::exception_ptr error_;
};

void check(const TokenizerTraining& options) {
    if (options.text_files.empty()) fail(Exit::config, "training a tokenizer: no text files");
    if (options.output.empty()) fail(Exit::config, "training a tokenizer: no output");
    if (options.model_type != "bpe" && options.model_type != "unigram")
        fail(Exit::config, "model type '{}'; expected bpe or unigram", options.model_type);
    // 256 byte pieces, 4 reserved pieces and the special tokens come first.
    const auto reserved = static_cast<int32_t>(260 + options.special_tokens.size());
    if (options.vocab_size <= reserved || options.vocab_size > 1'000'000)
        fail(Exit::config, "vocabulary size {}; expected {} to 1000000", options.vocab_size, reserved + 1);
    std::set<std::string> taken = {"<unk>", "<s>", "</s>", "<pad>"};
    for (const std::string& token : options.special_tokens) {
        if (token.empty() || token.find_first_of(" \t\r\n") != std::string::npos)
            fail(Exit::config, "special token '{}'; expected a token without white space", token);
        if (!taken.insert(token).second) fail(Exit::config, "special token '{}' exists already", token);
    }
}

/// A list as CSV, the form that SentencePiece expects.
std::string quoted_list(const std::vector<std::string>& items) {
    std::string list;
    for (const std::string& item : items) {
        list += list.empty() ? "\"" : ",\"";
        for (const char c : item) list += c == '"' ? "\"\"" : std::string(1, c);
        list += '"';
    }
    return list;
}

/// The trainer's message without its source location: "file.cc(1) [condition] message".
std::string reason(const sentencepiece::util::Status& status) {
    const std::string text = status.ToString();
    const size_t place = text.rfind("] ");
    return place == std::string::npos || place + 2 == text.size() ? text : text.substr(place + 2);
}

}  // namespace

void train_tokenizer(const TokenizerTraining& options) {
    check(options);
    // Unigram sums its expectations per thread: a fixed number of threads gives the same model on every machine.
    const int threads = options.model_type == "unigram" ? 16 : std::max(1, options.threads);
    std::unordered_map<std::string, std::string> settings = {
        {"model_type", options.model_type},
        {"vocab_size", std::to_string(options.vocab_size)},
        {"num_threads", std::to_string(threads)},
        {"normalization_rule_name", "identity"},
        {"remove_extra_whitespaces", "false"},
        {"byte_fallback", "true"},
        {"split_digits", "true"},
        {"allow_whitespace_only_pieces", "true"},
        {"max_sentence_length", "1073741824"},  // longer lines would be skipped silently
        {"train_extremely_large_corpus", "true"},
        {"unk_id", "0"},
        {"bos_id", "1"},
        {"eos_id", "2"},
        {"pad_id", "3"},
        {"pad_piece", "<pad>"},
        {"minloglevel", "2"},
    };
    if (!options.special_tokens.empty()) settings["user_defined_symbols"] = quoted_list(options.special_tokens);

    Lines lines(options.text_files);
    std::string model;
    const auto status = sentencepiece::SentencePieceTrainer::Train(settings, &lines, &model);
    lines.rethrow();
    if (lines.count() == 0)
        fail(Exit::data, "{}: no text to train a tokenizer on", fmt::join(options.text_files, ", "));
    if (!status.ok()) fail(Exit::config, "training a tokenizer of {} pieces: {}", options.vocab_size, reason(status));

    make_folders(parent_of(options.output));
    write_file_atomically(options.output + ".model", model);

    sentencepiece::SentencePieceProcessor processor;
    require(processor.LoadFromSerializedProto(model).ok(), "SentencePiece rejects the model it trained");
    std::string vocabulary;
    for (int id = 0; id < processor.GetPieceSize(); ++id)
        vocabulary += fmt::format("{}\t{}\n", processor.IdToPiece(id), processor.GetScore(id));
    write_file_atomically(options.output + ".vocab", vocabulary);
}

}  // namespace colonnade
